"""Text that came out of files, made safe to show. Imports nothing heavy."""


def printable(text: str) -> str:
    """Escape everything in a text that a terminal would act on or cannot show; the result is one line.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(value: object, longest: int = 100) -> str:
    """``value`` as printable text of at most ``longest`` characters, for messages.

    Example:
        >>> shown("conv\\n" * 50, longest=10)
        'conv\\\\nc...'
    """
    text = str(value)
    cut = printable(text[:longest])
    return cut if len(text) <= longest and len(cut) <= longest else f"{cut[: longest - 3]}..."


def shortened(line: str, most: int = 1000) -> str:
    """A line of at most so many characters: where it is longer, its beginning and its end.

    >>> shortened("name: " + "x" * 100 + " cannot be a folder's name", 60)
    "name: xxxxxxxxxxxxxxxxxxxxxxxx ... x cannot be a folder's name"
    """
    if len(line) <= most:
        return line
    return f"{line[: most // 2]} ... {line[-(most * 9 // 20) :]}"
