"""The errors that a user's input can cause.

Everything here ends a command with one line on stderr and the exit code of the class; any other exception is a
bug of ours and keeps its traceback.
"""


class UserError(Exception):
    """Bad input: the message names the file or key, says what is wrong and what to do.

    ``str(error)`` is one line. The ``basicsr`` command prints it and exits with ``exit_code``.
    """

    exit_code = 2


class OptionError(UserError):
    """An option file, key or value that cannot be used; the message starts with the key's full path."""
