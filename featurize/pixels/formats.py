"""What a file is that vggft cannot read as a picture, by its first bytes, and what to do about it."""

import contextlib
import re
import zlib

HEAD = 4096  # bytes that `foreign` looks at
MAX_FILE_BYTES = 1_000_000_000  # 120 million pixels of 16-bit RGBA, uncompressed, are 960 MB

_CONVERT = "not supported; convert it to PNG or JPEG"
_SVG = f"SVG drawing: {_CONVERT}"
_HTML = (
    rb"\s*(<\?xml[^>]{0,1000}>\s*)?(<!--.{0,1000}-->\s*)?"
    rb"<(!doctype html|(html|head|body|script|noscript|style|meta|title|link|base|h[1-6]|p|br|hr|div|span|pre|center|font|b|a"
    rb"|img|iframe|table|ul|ol|form|main|section|article|header|nav)[\s>/])"
)

# First bytes (regular expression) → what it is. Formats of pictures that are supported are not in this list.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs\.github\.com/", "Git LFS pointer, not the picture itself; fetch the pictures: git lfs pull"),
    (rb"/annex/objects/|\.\./.{0,400}\.git/annex/objects/", "git-annex pointer, not the picture itself; fetch it: git annex get"),
    (_HTML, "not a picture: HTML page; download it again"),
    (rb"\s*(<\?xml.{0,2000})?(<!--.{0,2000}-->\s*)?(<!doctype svg.{0,1000})?<svg", _SVG),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", f"JPEG XL picture: {_CONVERT}"),
    (rb"II\xbc[\x00\x01]", f"JPEG XR picture: {_CONVERT}"),
    (rb"8BP[SB]", f"Photoshop picture (PSD): {_CONVERT}"),
    (rb"gimp xcf", f"GIMP picture (XCF): {_CONVERT}"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"PostScript drawing (EPS): {_CONVERT}"),
    (rb"%PDF", f"PDF document: {_CONVERT}"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", f"Windows metafile: {_CONVERT}"),
    (rb"\0\0\x01\0", "icon (ICO): not supported; convert it to PNG"),
    (rb"\0\0\x02\0[^\0]\0.{3}\0", "cursor (CUR): not supported; convert it to PNG"),
    (rb"qoif", f"QOI picture: {_CONVERT}"),
    (rb"BPG\xfb", f"BPG picture: {_CONVERT}"),
    (rb"FLIF", f"FLIF picture: {_CONVERT}"),
    (rb"P7\s", f"PAM picture: {_CONVERT}"),
    (rb"\x01\xda[\0\x01][\x01\x02]", f"SGI picture: {_CONVERT}"),
    (rb"\x59\xa6\x6a\x95", f"Sun raster picture: {_CONVERT}"),
    (rb"/\* XPM \*/|#define \S{1,200}_width\s", f"X11 picture (XPM or XBM): {_CONVERT}"),
    (rb"FORM.{4}(ILBM|PBM )", f"Amiga picture (ILBM): {_CONVERT}"),
    (rb"\x8a[MJ]NG|\x8bJNG", f"MNG or JNG picture: {_CONVERT}"),
    (rb"AT&TFORM", f"DjVu document: {_CONVERT}"),
    (rb"SDPX|XPDS", f"DPX picture: {_CONVERT}"),
    (rb"icns", f"icon (ICNS): {_CONVERT}"),
    (rb"DDS |\xabKTX", f"texture (DDS or KTX): {_CONVERT}"),
    (rb"\x76\x2f\x31\x01", f"OpenEXR picture: {_CONVERT}"),
    (rb"#\?(RADIANCE|RGBE)", f"Radiance picture (HDR): {_CONVERT}"),
    (rb".{128}DICM", f"DICOM picture: {_CONVERT}"),
    (rb"SIMPLE  =", f"FITS picture: {_CONVERT}"),
    (rb"FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|.{4}ftypcrx |\0MRM|FOVb", f"raw picture of a camera: {_CONVERT}"),
    (rb"\x89HDF\r\n", "not a picture: HDF5 file"),
    (rb"\x93NUMPY", "not a picture: NumPy array; save it as PNG"),
    (rb".{4}ftyp(M4A|M4B|F4A)", "not a picture: audio file"),
    (rb".{4}ftyp(?!heic|heix|hev|heim|heis|mif1|msf1|avif|avis|jp2|jpx)", "not a picture: MP4 or QuickTime video"),
    (rb".{4}(moov|mdat|wide|free|skip)", "not a picture: QuickTime video"),
    (rb"\x1aE\xdf\xa3", "not a picture: Matroska or WebM video"),
    (rb"RIFF.{4}AVI ", "not a picture: AVI video"),
    (rb"RIFF.{4}WAVE|ID3|fLaC|\xff[\xf2\xf3\xfa\xfb]", "not a picture: audio file"),
    (rb"OggS|FLV\x01|\0\0\x01[\xba\xb3]|G.{187}G.{187}G|\x30\x26\xb2\x75\x8e\x66\xcf\x11", "not a picture: video or audio file"),
    (rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "not a picture: archive"),
    (rb"\xd0\xcf\x11\xe0", "not a picture: Office document"),
    (rb"\0\x05\x16[\0\x07]", "not a picture: side file of macOS"),
    (rb"\x4c\0\0\0\x01\x14\x02\0|\[InternetShortcut\]", "shortcut, not the picture itself"),
    (rb"SQLite format 3", "not a picture: database"),
    (rb"MZ.{58,}|\x7fELF", "not a picture: program"),
    (rb"\s*[{\[]\s*[\"{\[\]}0-9-]", "not a picture: JSON file"),
    (rb"\s*<\?xml", "not a picture: XML file"),
    (rb"\0{16}", "zeros where a picture starts: perhaps an interrupted copy or download; copy the file again"),
)  # fmt: skip
_PATTERNS = tuple((re.compile(pattern, re.DOTALL | re.IGNORECASE), what) for pattern, what in _FOREIGN)


def foreign(head: bytes) -> str | None:
    """Return what a file is, and what to do about it, if it is certainly no picture of a supported format.

    Args:
        head: the first `HEAD` bytes of the file.
    """
    head = head.removeprefix(b"\xef\xbb\xbf")  # the byte-order mark of text
    if head.startswith(b"\x1f\x8b"):
        with contextlib.suppress(zlib.error):
            if _named(zlib.decompressobj(wbits=31).decompress(head, HEAD)) == _SVG:
                return _SVG
    return _named(_utf8(head)) or _text(head)


def _named(head: bytes) -> str | None:
    return next((what for pattern, what in _PATTERNS if pattern.match(head)), None)


def _utf8(head: bytes) -> bytes:
    """Return the beginning of a text in UTF-16 as UTF-8, and other bytes as they are."""
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
    encoding = marks.get(head[:2])
    return head.decode(encoding, "ignore").encode() if encoding else head


def oversized(head: bytes, size: int) -> str | None:
    """Return why a file of this size is not read at all, or None if it is."""
    if size <= MAX_FILE_BYTES:
        return None
    limit = f"the limit of a picture file is {MAX_FILE_BYTES / 1e9:.0f} GB"
    return f"{foreign(head) or 'too large'} ({size / 1e9:.1f} GB; {limit})"


def _text(head: bytes) -> str | None:
    """Return "text file" for bytes that are printable UTF-8 or UTF-16; a character may be cut at the end."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = head[: len(head) // 2 * 2].decode(encoding) if encoding == "utf-16" else head.decode(encoding)
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or encoding != "utf-8":
            return None
        text = head[: error.start].decode()
    printable = bool(text.strip()) and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
    return "not a picture: text file" if printable else None
