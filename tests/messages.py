"""What a test asks of an error message: where the mistake is, and of which kind. Its other words may change."""


def assert_message(found: str | Exception | list[str], where: str, *kind: str) -> None:
    """A line of ``found`` begins with the key path or file ``where``, and says each fragment of ``kind`` behind it."""
    lines = found if isinstance(found, list) else str(found).splitlines()
    said = [line.removeprefix(f"{where}: ") for line in lines if line.startswith(f"{where}: ")]
    assert any(all(fragment in line for fragment in kind) for line in said), (where, kind, lines)
