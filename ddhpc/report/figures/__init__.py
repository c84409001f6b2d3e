"""The figures of a report: pure functions from arrays to a matplotlib Figure, drawn under `style.STYLE`."""
