"""The option values that name a search. Imports no torch, so that a command's help is quick."""

KINDS = ("auto", "exact", "tree", "hnsw")
# Names of earlier versions.
_OLD_NAMES = {"kdtree": "tree", "flat": "exact", "ivf": "hnsw"}
# A k-d tree is the fastest search for at most so many dimensions.
FEW_DIMENSIONS = 8
# With more dimensions, at most so many rows are all compared with each query.
FEW_ROWS = 2_000


def kind_of_search(kind: str, count: int, dimensions: int) -> str:
    """Return the search that ``auto`` selects, or ``kind`` itself.

    Args:
        kind: one of ``KINDS``.
        count: number of rows.
        dimensions: of a row.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> kind_of_search("auto", 200_000, 6), kind_of_search("auto", 200_000, 136)
        ('tree', 'hnsw')
    """
    if kind not in KINDS:
        raise ValueError(f"index: expected one of {', '.join(KINDS)}, got {kind!r}{new_name(kind)}")
    if kind != "auto":
        return kind
    if dimensions <= FEW_DIMENSIONS:
        return "tree"
    return "exact" if count <= FEW_ROWS else "hnsw"


def new_name(kind: object) -> str:
    """Return a hint for a name of earlier versions, the end of a message; otherwise an empty string.

    Example:
        >>> new_name("kdtree")
        "; write 'tree' for what was 'kdtree'"
    """
    known = isinstance(kind, str) and kind in _OLD_NAMES
    return f"; write {_OLD_NAMES[str(kind)]!r} for what was {kind!r}" if known else ""
