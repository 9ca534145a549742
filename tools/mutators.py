"""Ways to damage a file: random bytes, and the structures of the formats that vaekit reads."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

WHOLE = (0, 1, 2, 3, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
CONFUSED: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 1000, 10**6, 2**31, 2**53, 2**63, 10**40, 0.5, -0.0, 1e308, -1e308, 1e-320,
    float("nan"), float("inf"), "", "x", "0", "nan", "../x", "/dev/zero", "a" * 5000, "\ud800", "\x00", "é\u2028",
    [], [0], [[]], ["x"], [None], [1, 28, 28], [10**9], {}, {"x": 1}, {"": None},
)  # fmt: skip
DTYPES: tuple[Any, ...] = (
    "<f8", ">f8", "<f4", "<f2", "<f16", "|u1", "<u8", ">i2", "|b1", "<U3", "|S5", "|O", "<c16", "<M8[s]", "|V7", "<U0",
    "|V0", "<U99999999", "q", "", "<f80", [("a", "<f8")], [], [[]], ("<f8", (2, 2)), None, 5,
)  # fmt: skip
SHAPES: tuple[Any, ...] = (
    (), (0,), (1,), (-1,), (3, -4), (2**40,), (2**62, 4), (1, 1, 1, 1, 1, 1, 1, 1), 5, [4, 5], "x", (1.5,), (True,),
    (10**30,), (0, 2**62),
)  # fmt: skip
CELLS = (
    "", "nan", "NA", "inf", "-inf", "1e999", "-1e308", "0x10", "1_000", "1,5", "١٢", "\x00", '"', '""', "a" * 3000,
    "a" * 140_000, "\ufeff", "é", "2020-01-01", "True", "9" * 30, "9" * 400, "-0", "1e-400", "a\nb", "\u2028", "?", " ",
)  # fmt: skip


def of_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Flip bits; cut off, move, repeat or remove a part; or overwrite a number."""
    data = bytearray(raw)
    n = len(data)
    if not n:
        return rng.randbytes(rng.randint(0, 40))
    way = rng.randrange(7)
    a, b = sorted((rng.randrange(n + 1), rng.randrange(n + 1)))
    if way == 0:
        for _ in range(rng.choice((1, 1, 2, 8, 40))):
            data[rng.randrange(n)] ^= 1 << rng.randrange(8)
    elif way == 1:
        del data[a:]
    elif way == 2:
        b = min(b, a + rng.choice((1, 4, 16, 400)))
        at = rng.randrange(n)
        data[at : at + b - a] = data[a:b]
    elif way == 3:
        data[a:a] = rng.randbytes(rng.choice((1, 2, 4, 30)))
    elif way == 4:
        del data[a : min(b, a + rng.choice((1, 2, 8, 100)))]
    elif way == 5:
        size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
        at = rng.randrange(min(n, rng.choice((16, 64, n))))
        data[at : at + size] = (rng.choice(WHOLE) % 256**size).to_bytes(size, order)
    else:
        data += data[a:b]
    return bytes(data)


def of_json(value: Any, rng: random.Random) -> Any:
    """Replace, remove, add or deeply nest one entry."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, below in items:
            places.append((node, key))
            walk(below)

    walk(value)
    if not places or rng.random() < 0.02:
        return copy.copy(rng.choice(CONFUSED))
    node, key = rng.choice(places)
    way = rng.random()
    if way < 0.75:
        node[key] = copy.copy(rng.choice(CONFUSED))
    elif way < 0.85:
        del node[key]
    elif way < 0.95 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
        node[key] = rng.choice((-node[key], node[key] + 1, node[key] * 1000, str(node[key]), [node[key]]))
    elif isinstance(node, dict):
        node[rng.choice(("cache", "splits", "x", "latent", "prior", ""))] = copy.copy(rng.choice(CONFUSED))
    else:
        node.append(copy.copy(rng.choice(CONFUSED)))
    return value


def json_file(raw: bytes, rng: random.Random) -> bytes:
    way = rng.random()
    if way < 0.08:
        return of_bytes(raw, rng)
    if way < 0.1:
        depth = rng.choice((50, 900, 5000, 200_000))
        return (rng.choice(("[", '{"a":')) * depth).encode() + b"]" * rng.choice((0, depth))
    value = json.loads(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = of_json(value, rng)
    return json.dumps(value).encode()


def json_lines(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = json_file(lines[at], rng) if lines[at] else rng.choice((b"{}", b"[]", b"3", b"\xff"))
    return b"\n".join(lines)


def safetensors(raw: bytes, rng: random.Random) -> bytes:
    """Damage the header's entries or length, the numbers, or the metadata."""
    size = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    way = rng.random()
    if way < 0.2:
        return of_bytes(raw, rng)
    if way < 0.4 and body:
        return raw[: 8 + size] + of_bytes(body, rng)[: len(body)].ljust(len(body), b"\xff")
    if way < 0.6 and "vaekit" in header.get("__metadata__", {}):
        header["__metadata__"]["vaekit"] = json_file(header["__metadata__"]["vaekit"].encode(), rng).decode("latin1")
    elif way < 0.8:
        name = rng.choice([n for n in header if n != "__metadata__"])
        entry = header[name]
        entry["dtype"] = rng.choice(("F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X"))
        if rng.random() < 0.5:
            entry["shape"] = rng.choice(([], [0], entry["shape"][::-1], [1, *entry["shape"]], [-1], [2**40]))
    else:
        header = of_json(header, rng)
    text = json.dumps(header).encode()
    return (len(text) if rng.random() < 0.9 else rng.choice(WHOLE) % 2**64).to_bytes(8, "little") + text + body


def npy(raw: bytes, rng: random.Random) -> bytes:
    """Damage the header (type, order, shape, length, text) or any bytes."""
    if rng.random() < 0.3 or raw[:6] != b"\x93NUMPY":
        return of_bytes(raw, rng)
    size = int.from_bytes(raw[8:10], "little")
    header, body = raw[10 : 10 + size], raw[10 + size :]
    way = rng.random()
    if way < 0.15:
        text = of_bytes(header, rng)
    elif way < 0.2:
        text = rng.choice(
            (b"(" * 3000, b"-" * 3000 + b"1", b"{[]: 1}", b"{'a': 1}", b"'", b"[" * 90 + b"]" * 90, b"{}")
        )
    else:
        fields = {"descr": "<f8", "fortran_order": False, "shape": (len(body) // 8,)}
        old = header.decode("latin1")
        if rng.random() < 0.6:
            fields["descr"] = rng.choice(DTYPES)
        if rng.random() < 0.6:
            fields["shape"] = rng.choice(SHAPES)
        if rng.random() < 0.3:
            fields["fortran_order"] = rng.choice((True, 1, None))
        text = (old if rng.random() < 0.1 else repr(fields)).encode("latin1")
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"))
    long = version[0] >= 2
    length = len(text) if rng.random() < 0.9 else rng.choice(WHOLE)
    return (
        b"\x93NUMPY" + version + (length % 256 ** (4 if long else 2)).to_bytes(4 if long else 2, "little") + text + body
    )


def npz(raw: bytes, rng: random.Random) -> bytes:
    """Damage, rename, duplicate or recompress a member, or overwrite fields of the directory."""
    way = rng.random()
    if way < 0.25:
        return of_bytes(raw, rng)
    if way < 0.5:
        data = bytearray(raw)
        marks = [i for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06") for i in _all(raw, mark)]
        at = rng.choice(marks) + rng.randrange(4, 42)
        size = rng.choice((1, 2, 4))
        data[at : at + size] = (rng.choice((*WHOLE, 12, 14, 8, 9, 93)) % 256**size).to_bytes(size, "little")
        return bytes(data)
    with zipfile.ZipFile(io.BytesIO(raw)) as held:
        members = {name: held.read(name) for name in held.namelist()}
    name = rng.choice(list(members))
    out = io.BytesIO()
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    if way < 0.85:
        members[name] = npy(members[name], rng)
    elif way < 0.95:
        members[rng.choice(("y.npy", "x_test.npy", "x.npy", "names.npy", "factors.npy", "é.npy", ".npy", "x.txt"))] = (
            members[name]
        )
    else:
        del members[name]
    with zipfile.ZipFile(out, "w", packing) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def _all(raw: bytes, mark: bytes) -> list[int]:
    return [i for i in range(len(raw)) if raw.startswith(mark, i)]


def csv(raw: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return of_bytes(raw, rng)
    rows = [line.split(",") for line in raw.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(rows) if rng.random() < 0.8 else rows[0]
        way = rng.random()
        if way < 0.8 and row:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        elif way < 0.85:
            row.append(rng.choice(CELLS))
        elif way < 0.9 and row:
            row.pop()
        elif way < 0.95 and rows[0]:
            at, cell = rng.randrange(len(rows[0])), rng.choice(CELLS)
            for other in rows[1:]:
                other[at : at + 1] = [cell]
        else:
            del rows[rng.randrange(len(rows)) :]
            rows = rows or [[""]]
    mark = rng.choice((",", ",", ",", ",", ";", "\t"))
    text = "\n".join(mark.join(row) for row in rows)
    return text.encode(rng.choice(("utf8", "utf8", "utf8", "utf-16", "latin1")), "replace")


def idx(raw: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return of_bytes(raw, rng)
    data = bytearray(raw)
    if rng.random() < 0.5:
        data[rng.choice((0, 1, 2, 3))] = rng.choice((0, 1, 2, 3, 8, 9, 11, 12, 13, 14, 255))
    else:
        at = 4 + 4 * rng.randrange(max(1, data[3]))
        data[at : at + 4] = (rng.choice(WHOLE) % 2**32).to_bytes(4, "big")
    return bytes(data)


def idx_gz(raw: bytes, rng: random.Random) -> bytes:
    """Damage the compressed bytes, the length at the end or the content, or append another member."""
    way = rng.random()
    if way < 0.3:
        return of_bytes(raw, rng)
    if way < 0.5:
        return raw[:-4] + struct.pack("<I", rng.choice(WHOLE) % 2**32)
    if way < 0.6:
        return raw + gzip.compress(bytes(rng.choice((0, 1, 10**6))), 1)
    return gzip.compress(idx(gzip.decompress(raw), rng), 1)


def png(raw: bytes, rng: random.Random) -> bytes:
    """Damage, duplicate, remove or rename a chunk of a PNG, with a correct checksum."""
    if rng.random() < 0.3 or raw[:8] != b"\x89PNG\r\n\x1a\n":
        return of_bytes(raw, rng)
    chunks, at = [], 8
    while at + 8 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]))
        at += 12 + size
    i = rng.randrange(len(chunks)) if rng.random() < 0.6 else 0
    kind, body = chunks[i]
    way = rng.random()
    if way < 0.5:
        chunks[i] = kind, of_bytes(body, rng)
    elif way < 0.7 and kind == b"IHDR":
        sides = (0, 1, 6, 5000, 20_000, 2**31 - 1, 2**32 - 1)
        chunks[i] = kind, struct.pack(">II", rng.choice(sides), rng.choice(sides)) + body[8:]
    elif way < 0.8:
        chunks.insert(i, chunks[i])
    elif way < 0.9:
        del chunks[i]
    else:
        chunks.insert(
            1,
            (
                rng.choice((b"tRNS", b"PLTE", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"gAMA")),
                rng.randbytes(rng.randint(0, 60)),
            ),
        )
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return raw[:8] + b"".join(packed)


BY_SUFFIX = {
    ".npy": npy,
    ".npz": npz,
    ".csv": csv,
    ".gz": idx_gz,
    ".idx": idx,
    ".png": png,
    ".json": json_file,
    ".jsonl": json_lines,
    ".safetensors": safetensors,
}


def mutate(name: str, raw: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a file, chosen by its suffix, sometimes damaged twice."""
    way = BY_SUFFIX.get(name[name.rfind(".") :], of_bytes)
    damaged = way(raw, rng)
    return of_bytes(damaged, rng) if rng.random() < 0.1 else damaged
