"""What a user can mend."""


class InputError(ValueError):
    """A file, a row or a setting that cannot be used.

    The message names the file, the row or key, what was expected, and how to mend it.
    """
