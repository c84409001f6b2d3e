"""The kinds of raw data that `prepare` packs."""
