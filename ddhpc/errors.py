"""The one error that means: what the user gave is wrong, and here is what to do."""

BAD_INPUT = 2
"""Exit code of a job that ends for bad input."""


class InputError(ValueError):
    """Bad input; its message is one line that names the option or file, what was found and what was expected.

    Ends the job with exit code BAD_INPUT and the message once, from rank 0.
    """
