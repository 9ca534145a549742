"""Files that vaekit does not read, with what to do instead."""

from pathlib import Path

from vaekit.errors import DataError

from . import folders
from .registry import formats

FOREIGN = {
    ".xls .xlsb .ods": "a spreadsheet of another format: save it as .xlsx or CSV (UTF-8)",
    ".7z .rar .gz .bz2 .xz .zst": "packed: unpack it, and give the file or the folder with the data",
    ".pkl .pickle .pt .pth .joblib": "a pickle, which vaekit never reads because it can run code: save arrays with "
    "numpy.savez, or a table as CSV or Parquet",
    ".loom .zarr .nc .tfrecord .fits": "of a format that vaekit does not "
    "read: save its arrays with numpy.savez, or a sparse matrix with scipy.sparse.save_npz",
    ".json .jsonl .ndjson .arff .xml .db .sqlite .rds .rdata .sav .dta": "of a format that vaekit does "
    "not read: save the table as CSV or Parquet",
    ".mp3 .ogg .m4a .aiff": "sound of another format: convert it to .wav or .flac, for example with ffmpeg",
    ".mp4 .avi .mov .mkv .webm": "a video: save its frames as images in a folder",
    ".heic .heif .svg .pdf": "of a format that Pillow does not read: convert it, and give a folder of images",
}
"""Files that are not data to read, by suffix, with a remedy."""


def unread(path: Path) -> DataError:
    """The error for a file of unknown format."""
    suffix = path.suffix.lower()
    if suffix in folders.SUFFIXES:
        return DataError(f"{path} is a single image: give a folder of images")
    for suffixes, what in FOREIGN.items():
        if suffix in suffixes.split():
            return DataError(f"{path} is {what}")
    return DataError(f"{path}: unknown format, expected {formats()} or a folder; convert or rename the file")
