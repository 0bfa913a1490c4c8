"""Which folders of a data folder are classes, and which files in them may be pictures."""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from featurize.data.dataset import Sample
from featurize.errors import VggftError
from featurize.pixels import formats
from featurize.wording import counted

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .png .gif .webp .tif .tiff .bmp .dib .ppm .pgm .ico .tga .pcx .jp2 .heic .heif .avif".split()
)

# Annotations and notes that lie beside pictures. They are left out if their contents are no picture, either.
SIDE_SUFFIXES = frozenset(
    (
        *".txt .xml .json .jsonl .csv .tsv .yaml .yml .toml .md .rst .html .htm .log .ini .cfg .conf .pts".split(),
        *".xmp .aae .url .md5 .sha1 .sha256 .py .sh".split(),
        *".tfw .tifw .jgw .jpgw .pgw .pngw .bpw .wld .prj .geojson .kml .gpx".split(),  # where on Earth a picture is
    )
)
SIDE_NAMES = frozenset(
    "readme license licence copying copyright notice authors contributors credits changelog citation manifest md5sums "
    "sha1sums sha256sums sha512sums checksums makefile".split()
)

# Files and folders of file managers, operating systems and network storage, lower case; hidden ones are skipped anyway.
LITTER = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "__pycache__"),
        *("recycler", "$recycle.bin", "$extend", "$winreagent", "$sysreset", "msocache", "wpsystem", "windowsapps"),
        *("system volume information", "lost+found", "@eadir", "@sharebin", "@sharesnap", "@tmp", "@database"),
        *("@recycle", "@recently-snapshot", "@snapshot", "@__thumb"),
        *("#recycle", "#snapshot", "~snapshot", "network trash folder", "temporary items", "thevolumesettingsfolder"),
    )
)
# Folders of network storage (Synology), and of files that Windows found. A class may be called @nasa or $5.
_SYSTEM = re.compile(r"@(syno|app(store|data|conf|home|share|temp)).*|found\.\d{3}", re.IGNORECASE | re.DOTALL)


def same_name(name: str) -> str:
    """Return the form in which names are compared: some systems store é as one character, some as two (Unicode NFC, NFD)."""
    return unicodedata.normalize("NFC", name)


def differ_in_case(names: Sequence[str]) -> list[list[str]]:
    """Return the names that differ only in upper and lower case, in lists."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(same_name(name).casefold(), []).append(name)
    return [variants for variants in alike.values() if len(variants) > 1]


def spellings(path: Path) -> list[Path]:
    """Return a path in the two Unicode forms, as written first."""
    forms = (str(path), *(unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD")))
    return [Path(form) for form in dict.fromkeys(forms)]


def _of_system(name: str) -> bool:
    """Return whether a folder belongs to an operating system or to network storage."""
    return name.lower() in LITTER or _SYSTEM.fullmatch(name) is not None


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in `folder` that may be classes or splits, sorted by path; hidden folders are skipped.

    Raises:
        VggftError: no permission to list the folder.
    """
    try:
        with os.scandir(folder) as entries:  # tells folders from files without asking for the status of each
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        return sorted(folder / name for name in names if not _of_system(name))
    except PermissionError:
        raise VggftError(f"{folder}: permission denied. Expected a folder that can be listed.") from None


def loose_files(folder: Path) -> int:
    """Return the number of files in a folder, without hidden ones."""
    return sum(1 for entry in folder.iterdir() if not entry.name.startswith(".") and not entry.is_dir())


def files_below(
    root: Path,
    folder: Path,
    template: Sample,
    above: tuple[str, ...] = (),
    beside: Callable[[Path], None] = lambda path: None,
) -> Iterator[Sample]:
    """Yield a sample for every file below a folder, sorted by name. Hidden files and loops of links are skipped.

    Args:
        root: the folder that sample paths are relative to.
        template: a sample with the label and split of the files.
        above: real paths of the folders above, to detect loops of links.
        beside: called with each annotation or note (`SIDE_SUFFIXES`, `SIDE_NAMES`), which is left out.
    """
    relative = folder.relative_to(root).as_posix()
    if os.path.realpath(folder) in above:
        yield _unusable(template, relative, "a link back to a folder above it")
        return
    above = (*above, os.path.realpath(folder))
    try:
        # Only names, because the directory entries take ten times as much memory.
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        yield _unusable(template, relative, f"folder cannot be listed: {error.strerror}")
        return
    prefix = "" if relative == "." else f"{relative}/"
    for name in names:
        if name.startswith(".") or name.lower() in LITTER:
            continue
        # Text, because pathlib took most of the time of this loop.
        path, relative = os.path.join(folder, name), prefix + name  # noqa: PTH118
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            linked = os.path.islink(path)  # noqa: PTH114
            reason = "broken link" if linked else f"cannot be read: {error.strerror}"
            yield _unusable(template, relative, reason)
            continue
        if stat.S_ISDIR(status.st_mode):
            if _of_system(name):
                continue
            if _suffix(name) in PICTURE_SUFFIXES:
                yield _unusable(template, relative, "a folder, not a picture")
            else:
                yield from files_below(root, folder / name, template, above, beside)
        elif not stat.S_ISREG(status.st_mode):
            yield _unusable(template, relative, "not a regular file (a pipe, socket or device)")
        elif _may_be_note(name) and _is_note(folder / name, status.st_size):
            beside(folder / name)
        else:
            yield replace(
                template, path=relative, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino
            )


def _unusable(template: Sample, relative: str, reason: str) -> Sample:
    return replace(template, path=relative, status="rejected", reason=reason)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def ignored(notes: Sequence[Path]) -> str:
    """Return a sentence about annotations and notes that were left out."""
    suffixes = ", ".join(sorted({path.suffix.lower() or path.name for path in notes}))
    return f"ignored beside the images: {counted(len(notes), 'file')} ({suffixes})"


def _may_be_note(name: str) -> bool:
    return _suffix(name) in SIDE_SUFFIXES or name.lower() in SIDE_NAMES


def _is_note(path: Path, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return not size or formats.foreign(file.read(formats.HEAD)) is not None
    except OSError:
        return False  # reported where it is read
