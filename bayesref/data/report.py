"""What a reader did: for each file, how many rows it held and why some were left out.

    rows read = spots kept + Σ rows left out

Each row counts once, under the first cause that applies.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FileReport:
    """One input file.

    Attributes
    ----------
    name, format : path as given; 'MTZ', 'XDS_ASCII', ...
    n_read : rows in the file
    left_out : cause -> number of rows
    n_spot, n_image : kept
    cell : 'a b c alpha beta gamma', Å and degrees, as in the file
    spacegroup : symbol as in the file, '' where the format has none
    notes : choices worth knowing, such as which intensity column was taken
    stills : whether each image is of its own orientation
    """

    name: str
    format: str
    n_read: int
    left_out: dict[str, int]
    n_spot: int
    n_image: int
    cell: str
    spacegroup: str
    notes: tuple[str, ...] = ()
    stills: bool = False

    def __str__(self) -> str:
        causes = ", ".join(f"{n:,} {cause}" for cause, n in self.left_out.items() if n) or "none"
        lines = [
            f"{self.name} ({self.format}): {self.n_read:,} rows, {self.n_spot:,} spots on "
            f"{self.n_image:,} images; left out: {causes}",
            f"  cell {self.cell or 'not given'}, space group {self.spacegroup or 'not given'}",
        ]
        return "\n".join(lines + [f"  {note}" for note in self.notes])


@dataclass(frozen=True)
class ReadReport:
    """All input files, and what they became.

    Attributes
    ----------
    files : one `FileReport` each
    n_reflection : unique reflections measured (per dataset where datasets are kept apart)
    cell, spacegroup : used for all files
    resolution : (lowest, highest) d of the spots kept, Å
    """

    files: tuple[FileReport, ...] = field(default_factory=tuple)
    n_reflection: int = 0
    cell: str = ""
    spacegroup: str = ""
    resolution: tuple[float, float] = (float("inf"), 0.0)

    @property
    def n_spot(self) -> int:
        return sum(f.n_spot for f in self.files)

    @property
    def n_read(self) -> int:
        return sum(f.n_read for f in self.files)

    def __str__(self) -> str:
        low, high = self.resolution
        total = (
            f"{self.n_spot:,} spots of {self.n_reflection:,} unique reflections, {low:.2f} to {high:.2f} Å, "
            f"cell {self.cell}, space group {self.spacegroup}"
        )
        return "\n".join([*(str(f) for f in self.files), total])
