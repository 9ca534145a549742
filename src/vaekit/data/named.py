"""Data sets by name: read from the cache or the system, else downloaded; checked and packed once."""

import gzip
import importlib.util
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import DataError, UnavailableError

from . import cache as caches
from . import dsprites
from .core import Array, Progress
from .download import File, fetch
from .readers import idx
from .readers.registry import reader
from .source import Source

SYSTEM = Path("/usr/share/datasets")  # folder of Debian's dataset-* packages
Reader = Callable[[Path, Sequence[File]], tuple[Array, Array]]
DIGITS = tuple("0123456789")
MNIST_BYTES, CIFAR_BYTES = 40_000_000, 200_000_000
"""Maximum sizes of a download in bytes; the largest files have 26 and 170 million."""


@dataclass(frozen=True)
class Named:
    """A data set with a name, files with checksums, and standard splits by row.

    Args:
        summary: description in one line.
        paper: the paper to cite.
        labels: names of the classes.
        splits: (first row of valid, first row of test, number of rows), in the order of the files.
        files: the files on every mirror.
        mirrors: addresses of folders.
        read: returns the (unpacked) data and labels from a folder with the files.
        package: Debian package with the files, or None.
    """

    summary: str
    paper: str
    labels: tuple[str, ...]
    splits: tuple[int, int, int] | None = None
    files: tuple[File, ...] = ()
    mirrors: tuple[str, ...] = ()
    read: Reader | None = None
    package: str | None = None


def _idx_files(*checksums: str) -> tuple[File, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        File(f"{name}-ubyte.gz", "sha256", checksum, unpacked=True, most=MNIST_BYTES)
        for name, checksum in zip(names, checksums, strict=True)
    )


def _read_idx(folder: Path, files: Sequence[File]) -> tuple[Array, Array]:
    train, train_label, test, test_label = (idx.read(folder / file.name) for file in files)
    return np.concatenate([train, test]), np.concatenate([train_label, test_label])


def read_cifar(folder: Path, files: Sequence[File]) -> tuple[Array, Array]:
    """Images (60000, 32, 32, 3) and labels (60000,) from the archive of CIFAR-10's binary version.

    Its six files hold records of one label and 3 x 32 x 32 bytes.

    Raises:
        DataError: the archive is damaged, or of another version.
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    path = folder / files[0].name
    content = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if name in names else None
                if stream is not None:
                    content[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): remove it to download it again") from error
    if missing := [name for name in names if len(content.get(name, b"")) % 3073 or not content.get(name)]:
        raise DataError(f"{path}: {missing[0]} is missing or incomplete: expected CIFAR-10's *binary* version")
    records = np.concatenate([np.frombuffer(content[name], np.uint8).reshape(-1, 3073) for name in names])
    pictures = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), records[:, 0]


SETS = {
    "fashion-mnist": Named(
        "70,000 grey 28x28 pictures of clothes, 10 classes",
        "Xiao, Rasul, Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        splits=(50_000, 60_000, 70_000),
        files=_idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
        read=_read_idx,
        package="dataset-fashion-mnist",
    ),
    "mnist": Named(
        "70,000 grey 28x28 pictures of handwritten digits, 10 classes",
        "LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition",
        DIGITS,
        splits=(50_000, 60_000, 70_000),
        files=_idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        read=_read_idx,
    ),
    "cifar10": Named(
        "60,000 colour 32x32 photographs, 10 classes",
        "Krizhevsky (2009), Learning multiple layers of features from tiny images",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        splits=(45_000, 50_000, 60_000),
        files=(File("cifar-10-binary.tar.gz", "md5", "c32a1d4ab5d03f1284b67883e8d87530", most=CIFAR_BYTES),),
        mirrors=("https://www.cs.toronto.edu/~kriz",),
        read=read_cifar,
    ),
    "dsprites": Named(
        "737,280 binary 64x64 pictures of one shape with six factors, computed as needed",
        "Matthey, Higgins, Hassabis, Lerchner (2017), dSprites; computed from its geometry",
        dsprites.SHAPES,
    ),
    "digits": Named(
        "1,797 grey 8x8 pictures of handwritten digits with values 0 to 16, 10 classes; comes with scikit-learn",
        "Alpaydin, Kaynak (1998), Optical recognition of handwritten digits, UCI repository",
        DIGITS,
    ),
}


def datasets() -> list[dict[str, Any]]:
    """The data sets that `load` knows by name, each with name, summary, paper and the arguments that apply to it."""
    random = ["valid", "test", "split_seed", "group", "splits"]
    return [
        {
            "name": name,
            "summary": known.summary,
            "paper": known.paper,
            "arguments": ["splits", "cache"] if known.files else ["splits"] if name == "dsprites" else random,
        }
        for name, known in SETS.items()
    ]


@reader("named", "a named data set")
def source(
    name: str,
    *,
    cache: str | Path | None = None,
    mirrors: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Source:
    """A data set by name: training data followed by test data in one array, memory-mapped from the cache.

    Files are read from the folder NAME of the cache or from /usr/share/datasets/NAME, else downloaded.

    Args:
        name: one of `SETS`.
        cache: the cache folder, if not the default.
        mirrors: addresses of folders to download from; by default `VAEKIT_MIRROR`/NAME if set, else the public ones.
        progress: called during the download.

    Raises:
        UnavailableError: the files are neither on this machine nor downloadable.
        DataError: the files are damaged, or the cache cannot be written.
    """
    known = SETS[name]
    if name == "dsprites":
        return dsprites.source()
    if known.read is None or known.splits is None:
        return _digits()
    folder = caches.folder(cache) / name
    packed, labels = folder / "x.npy", folder / "label.npy"
    if not packed.exists() or not labels.exists():
        x, label = known.read(_locate(name, known, folder, mirrors, progress), known.files)
        for path, array in ((labels, label), (packed, x)):
            with caches.writing(path) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    try:
        x, label = (np.load(path, mmap_mode="r", allow_pickle=False) for path in (packed, labels))
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{folder} is damaged ({error}): remove it and try again") from error
    valid, test, end = known.splits
    if len(x) != end or len(label) != end:
        raise DataError(f"{packed} holds {len(x)} rows, expected {end}: remove {folder} and try again")
    rows = {"train": np.arange(valid), "valid": np.arange(valid, test), "test": np.arange(test, end)}
    return Source(x, np.array(label), list(known.labels), splits=rows, kind="image")


def _locate(name: str, known: Named, folder: Path, mirrors: Sequence[str] | None, progress: Progress | None) -> Path:
    """A folder with all files, checked; downloads missing files into the cache."""
    for candidate in (folder, SYSTEM / name):
        if all((candidate / file.name).is_file() for file in known.files):
            for file in known.files:
                if problem := file.problem(candidate / file.name):
                    raise DataError(f"{candidate / file.name}: {problem}; remove it to download it again")
            return candidate
    if mirrors is None:
        own = os.environ.get("VAEKIT_MIRROR")
        mirrors = (f"{own.rstrip('/')}/{name}",) if own else known.mirrors
    for file in known.files:
        if (folder / file.name).is_file() and file.problem(folder / file.name) is None:
            continue
        try:
            fetch(file, folder, mirrors, progress=progress)
        except UnavailableError as error:
            package = f"apt-get install {known.package}, or " if known.package else ""
            raise UnavailableError(
                f"{name}: {error}; {package}put {', '.join(file.name for file in known.files)} into {folder} by hand, "
                "or set VAEKIT_MIRROR to a server that has them"
            ) from error
    return folder


def _digits() -> Source:
    """scikit-learn's digits, from its file because importing scikit-learn takes longer than a second."""
    spec = importlib.util.find_spec("sklearn")
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = (Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders)
    file = next((file for file in files if file.is_file()), None)
    if file is not None:
        with gzip.open(file, "rt") as rows:
            table = np.loadtxt(rows, delimiter=",")
    else:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("the digits come with scikit-learn: pip install scikit-learn") from error
        table = np.column_stack(load_digits(return_X_y=True))
    x = table[:, :64].astype(np.uint8).reshape(-1, 8, 8)
    return Source(x, table[:, 64].astype(np.int64), list(DIGITS), kind="image", scale=(0.0, 16.0))
