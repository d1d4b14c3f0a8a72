"""The names of the searches, as options have them; without torch, so that a command's help is quick."""

KINDS = ("auto", "exact", "tree", "hnsw")
# What earlier versions called them.
_OLD_NAMES = {"kdtree": "tree", "flat": "exact", "ivf": "hnsw"}
# Up to how many dimensions a k-d tree is the fastest search.
FEW_DIMENSIONS = 8
# Up to how many rows of more dimensions each query is compared with all of them.
FEW_ROWS = 2_000


def kind_of_search(kind: str, count: int, dimensions: int) -> str:
    """Return the kind that ``auto`` stands for, or the kind itself.

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
    """Return the end of a message about an unknown kind: what to write for a name of earlier versions, else nothing.

    Example:
        >>> new_name("kdtree")
        "; write 'tree' for what was 'kdtree'"
    """
    known = isinstance(kind, str) and kind in _OLD_NAMES
    return f"; write {_OLD_NAMES[str(kind)]!r} for what was {kind!r}" if known else ""
