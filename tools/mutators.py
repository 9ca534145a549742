"""Ways to damage a file: random bytes, and the structures of the formats that vaekit reads."""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import json
import lzma
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

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
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    out = io.BytesIO()
    packings = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    packing = rng.choices(packings, (10, 10, 1, 1))[0]  # the last two take a millisecond
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


ABOVE = ("sep=;", "sep=", "# x,y", "#", "", "\ufeff", ",,,,", "a", "m,kg,,s,", "size,number,kind,flag,label")
"""Lines that programs write above, below or between the rows of a table."""


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
    return _written(rows, rng)


def _written(rows: list[list[str]], rng: random.Random) -> bytes:
    """Rows as delimited text, in the ways of several programs."""
    delimiter, end = rng.choice((",", ",", ",", ",", ";", "\t", "|", " ")), rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
    if rng.random() < 0.1:
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    if rng.random() < 0.1:
        rows = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    if rng.random() < 0.1:
        rows = rows[1:]
    lines = [delimiter.join(row) for row in rows]
    if rng.random() < 0.2:
        lines.insert(rng.choice((0, 0, 1, len(lines))), rng.choice(ABOVE))
    text = end.join(lines) + rng.choice((end, ""))
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


def workbook(raw: bytes, rng: random.Random) -> bytes:
    """Damage the archive, or the text of one of its parts: a number, a tag, an attribute or any bytes."""
    if rng.random() < 0.2:
        return of_bytes(raw, rng)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(
        [n for n in parts if n.endswith(("sheet1.xml", "sharedStrings.xml", "workbook.xml", "styles.xml"))]
    )
    text = parts[name]
    way = rng.random()
    found = list(re.finditer(rb'"[^"]*"|>[^<]*<', text))
    if way < 0.75 and found:
        place = rng.choice(found)
        inner = rng.choice(
            (*map(str, WHOLE), *CELLS, "s", "e", "b", "d", "inlineStr", "XFD1048576", "A0", "A1:A", "#N/A")
        )
        text = text[: place.start() + 1] + inner.encode("utf8", "replace") + text[place.end() - 1 :]
    elif way < 0.85:
        text = text.replace(b"</row>", b"", 1)
    else:
        text = of_bytes(text, rng)
    parts[name] = text
    if rng.random() < 0.03:
        del parts[rng.choice(list(parts))]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for part, content in parts.items():
            file.writestr(part, content)
    return out.getvalue()


def packed_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Damage the compressed bytes, or the content, compressed anew."""
    return of_bytes(raw, rng) if rng.random() < 0.3 else gzip.compress(blocks(gzip.decompress(raw), rng), 1)


def blocks(raw: bytes, rng: random.Random) -> bytes:
    """Damage any bytes, or the fields of a header of a tar archive, with a correct checksum."""
    heads = [at for at in range(0, len(raw) - 511, 512) if raw[at + 257 : at + 262] == b"ustar"]
    if rng.random() < 0.3 or not heads:
        return start(raw, rng)
    data, at = bytearray(raw), rng.choice(heads)
    place, size = rng.choice(((0, 100), (124, 12), (124, 12), (156, 1), (157, 100), (345, 155)))
    texts = (
        b"",
        b"../../x.png",
        b"/etc/passwd",
        b"77777777777",
        b"-1",
        b"00000000001",
        b"\x80" + b"\xff" * 11,
        b"L",
        b"x",
    )
    texts = (*texts, b"1", b"2", b"S", b"g", b"00000100000", b"a/../b.png", b"\xff\xfe.png", b"C:/x.png")
    data[at + place : at + place + size] = rng.choice(texts)[:size].ljust(size, b"\0")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def start(raw: bytes, rng: random.Random) -> bytes:
    """Overwrite up to three numbers or texts among the first 600 bytes, or damage any bytes."""
    if rng.random() < 0.4:
        return of_bytes(raw, rng)
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 3))):
        size, order = rng.choice((1, 2, 2, 4, 4, 8)), rng.choice(("little", "little", "big"))
        at = rng.randrange(min(len(data), rng.choice((64, 352, 600))))
        data[at : at + size] = (rng.choice((*WHOLE, 4, 8, 16, 24, 32, 64)) % 256**size).to_bytes(size, order)
    return bytes(data)


def csv_packed(raw: bytes, rng: random.Random) -> bytes:
    """Damage the compressed bytes, or the table in them, compressed in the same or another format."""
    if rng.random() < 0.25:
        return of_bytes(raw, rng)
    table = csv(gzip.decompress(raw), rng)
    formats = (
        lambda text: gzip.compress(text, 1),
        lambda text: bz2.compress(text, 1),
        lambda text: lzma.compress(text, preset=0),
    )
    packed = rng.choices(formats, (10, 1, 1))[0](table)
    return packed + rng.choice((b"", b"", b"", b"\0" * 9, packed, packed[:20]))


def parquet(raw: bytes, rng: random.Random) -> bytes:
    """Damage any bytes, the footer or the pages, or replace a column by one of another type."""
    way, size = rng.random(), int.from_bytes(raw[-8:-4], "little")
    if way < 0.15:
        return of_bytes(raw, rng)
    pages, footer = raw[4 : -8 - size], raw[-8 - size : -8]
    if way < 0.5:
        footer = of_bytes(footer, rng)
    elif way < 0.7:
        pages = of_bytes(pages, rng)[: len(pages)].ljust(len(pages), b"\0")
    else:
        return _retyped(raw, rng)
    length = len(footer) if rng.random() < 0.9 else rng.choice(WHOLE) % 2**32
    return b"PAR1" + pages + footer + length.to_bytes(4, "little") + b"PAR1"


def _retyped(raw: bytes, rng: random.Random) -> bytes:
    """The table with one or two columns of unusual types or names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(io.BytesIO(raw)).read()
    names, columns, n = list(table.column_names), list(table.columns), len(table)
    for _ in range(rng.choice((1, 1, 2))):
        kind, make = rng.choice(COLUMNS)
        column = pa.array([make(i) if rng.random() < 0.9 else None for i in range(n)], kind(pa))
        at = rng.randrange(len(names))
        columns[at] = (
            column.dictionary_encode() if str(kind(pa)) in ("string", "int8") and rng.random() < 0.2 else column
        )
        names[at] = rng.choice((names[at], names[at], names[0], "", "label", "a,b", "é\n", "x" * 3000))
    table, out = pa.table(columns, names=names), io.BytesIO()
    try:
        pq.write_table(table, out, compression=rng.choice(("none", "snappy", "gzip", "zstd")), row_group_size=7)
    except pa.ArrowException:  # a type that Parquet lacks
        return raw
    return out.getvalue()


COLUMNS: tuple[tuple[Callable[[Any], Any], Callable[[int], Any]], ...] = (
    (lambda pa: pa.null(), lambda i: None), (lambda pa: pa.bool_(), lambda i: i % 2 == 0),
    (lambda pa: pa.int8(), lambda i: i - 3), (lambda pa: pa.uint64(), lambda i: 2**64 - 1 - i),
    (lambda pa: pa.int64(), lambda i: 2**62 + i), (lambda pa: pa.float16(), lambda i: np.float16(i)),
    (lambda pa: pa.float64(), lambda i: (float("nan"), float("inf"), -0.0, 1e308)[i % 4]),
    (lambda pa: pa.string(), lambda i: CELLS[i % len(CELLS)]), (lambda pa: pa.string(), lambda i: f"{i}" + "x" * 2000),
    (lambda pa: pa.large_string(), lambda i: f"{i}.5"), (lambda pa: pa.binary(), lambda i: b"\xff\x00" * i),
    (lambda pa: pa.binary(2), lambda i: b"ab"), (lambda pa: pa.date32(), lambda i: i),
    (lambda pa: pa.timestamp("ns"), lambda i: i * 10**15), (lambda pa: pa.time64("us"), lambda i: i),
    (lambda pa: pa.duration("s"), lambda i: i), (lambda pa: pa.decimal128(38, 3), lambda i: Decimal(i) / 8),
    (lambda pa: pa.list_(pa.int8()), lambda i: [i % 5] * (i % 3)),
    (lambda pa: pa.struct([("a", pa.int8())]), lambda i: {"a": i % 9}),
    (lambda pa: pa.map_(pa.string(), pa.int8()), lambda i: [("k", i % 9)]),
)  # fmt: skip
"""Types of columns, made by pyarrow, and the cell in row i."""


def matlab(raw: bytes, rng: random.Random) -> bytes:
    """Damage any bytes, the tag or the content of a variable of a MATLAB 5 file, packed anew if it was packed."""
    if rng.random() < 0.3 or not raw.startswith(b"MATLAB 5.0"):
        return of_bytes(raw, rng)
    variables, at = [], 128
    while at + 8 <= len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        variables.append((kind, raw[at + 8 : at + 8 + size]))
        at += 8 + size
    i = rng.randrange(len(variables))
    kind, body = variables[i]
    inner = zlib.decompress(body) if kind == 15 else body
    data = bytearray(inner)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = 4 * rng.randrange(min(len(data) // 4, rng.choice((6, 16, len(data) // 4))))
        data[place : place + 4] = (rng.choice((*WHOLE, 4, 5, 6, 7, 9, 14, 15)) % 2**32).to_bytes(4, "little")
    inner = bytes(data) if rng.random() < 0.7 else of_bytes(inner, rng)
    variables[i] = kind, zlib.compress(inner) if kind == 15 else inner
    packed = (
        struct.pack("<II", k, len(b) if rng.random() < 0.98 else rng.choice(WHOLE) % 2**32) + b for k, b in variables
    )
    return raw[:128] + b"".join(packed)


def jpeg(raw: bytes, rng: random.Random) -> bytes:
    """Damage, duplicate, remove or insert a segment before the pixels, with a correct length, or any bytes."""
    segments, at = [], 2
    while raw[at : at + 1] == b"\xff" and raw[at + 1] != 0xDA and at + 4 <= len(raw):
        size = int.from_bytes(raw[at + 2 : at + 4], "big")
        segments.append((raw[at + 1], raw[at + 4 : at + 2 + size]))
        at += 2 + size
    way = rng.random()
    if way < 0.25 or not segments:
        return of_bytes(raw, rng)
    if way < 0.45:
        return raw[:at] + of_bytes(raw[at:], rng)
    i = rng.randrange(len(segments))
    marker, body = segments[i]
    if way < 0.8:
        segments[i] = marker, of_bytes(body, rng)[:60_000]
    elif way < 0.85:
        del segments[i]
    elif way < 0.9:
        segments.insert(i, segments[i])
    else:
        exif = b"Exif\0\0" + tiff_header(rng)
        segments.insert(0, (rng.choice((0xE1, 0xE1, 0xE2, 0xEE, 0xC2, 0xDD)), rng.choice((exif, rng.randbytes(20)))))
    packed = (b"\xff" + bytes([m]) + (len(b) + 2).to_bytes(2, "big") + b for m, b in segments)
    return raw[:2] + b"".join(packed) + raw[at:]


TAGS = (
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339,
    347, 530, 34665, 34675, 65535,
)  # fmt: skip


def tiff_header(rng: random.Random) -> bytes:
    """A TIFF header with random entries, as in EXIF."""
    entries = sorted(
        (rng.choice(TAGS), rng.randrange(14), rng.choice((1, 2, 9, 2**31)), rng.choice(WHOLE) % 2**32) for _ in range(3)
    )
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0" * rng.choice((0, 4, 20))


def tiff(raw: bytes, rng: random.Random) -> bytes:
    """Damage an entry of the first directory, or any bytes."""
    if rng.random() < 0.25 or raw[:4] != b"II*\0":
        return of_bytes(raw, rng)
    data, at = bytearray(raw), int.from_bytes(raw[4:8], "little")
    count = int.from_bytes(raw[at : at + 2], "little")
    for _ in range(rng.choice((1, 1, 2))):
        offset = at + 2 + 12 * rng.randrange(count)
        tag, kind, number, value = struct.unpack_from("<HHII", raw, offset)
        way = rng.randrange(6)
        if way == 0:
            tag = rng.choice(TAGS)
        elif way == 1:
            kind = rng.randrange(16)
        elif way == 2:
            number = rng.choice((0, 2, 3, 4, 100, 2**31, 2**32 - 1))
        else:
            value = rng.choice((*WHOLE, 4, 5, 6, 7, 8, 16, 32, 64, 32773, 50_000)) % 2**32
        struct.pack_into("<HHII", data, offset, tag, kind, number, value)
    return bytes(data)


def header(raw: bytes, rng: random.Random) -> bytes:
    """Overwrite up to three numbers among the first 64 bytes, or damage any bytes."""
    if rng.random() < 0.5:
        return of_bytes(raw, rng)
    data = bytearray(raw)
    for _ in range(rng.choice((1, 2, 3))):
        size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
        at = rng.randrange(min(len(data), 64))
        data[at : at + size] = (rng.choice((*WHOLE, 4, 8, 16, 24, 32)) % 256**size).to_bytes(size, order)
    return bytes(data)


def archive(raw: bytes, rng: random.Random) -> bytes:
    """Damage the header, or what follows it, of an archive of `vaekit compress`, mostly with a correct checksum."""
    if rng.random() < 0.15:
        return of_bytes(raw, rng)
    size = int.from_bytes(raw[8:12], "little")
    text, rest = zlib.decompress(raw[12 : 12 + size]), raw[12 + size : -4]
    if rng.random() < 0.75:
        text = json_file(text, rng)
    else:
        rest = of_bytes(rest, rng)
    if rng.random() < 0.05:
        rest = zlib.compress(bytes(rng.choice((10**6, 10**8))), 1)
    packed = zlib.compress(text, 1)
    size = len(packed) if rng.random() < 0.95 else rng.choice(WHOLE) % 2**32
    body = raw[:8] + size.to_bytes(4, "little") + packed + rest
    return body + zlib.crc32(body).to_bytes(4, "little")


BY_SUFFIX = {
    ".vk": archive,
    ".mat": matlab,
    ".xlsx": workbook,
    **dict.fromkeys((".tar.gz", ".tgz"), packed_bytes),
    ".nii.gz": packed_bytes,
    ".tar": blocks,
    **dict.fromkeys((".wav", ".flac", ".dcm", ".nii"), start),
    ".npy": npy,
    ".npz": npz,
    ".csv": csv,
    ".csv.gz": csv_packed,
    ".parquet": parquet,
    ".gz": idx_gz,
    ".idx": idx,
    ".png": png,
    ".jpg": jpeg,
    ".tif": tiff,
    **dict.fromkeys((".bmp", ".dib", ".gif", ".webp", ".tga", ".pcx", ".ico", ".jp2", ".sgi", ".qoi", ".dds"), header),
    ".json": json_file,
    ".jsonl": json_lines,
    ".safetensors": safetensors,
}


def mutate(name: str, raw: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a file, chosen by its suffix, sometimes damaged twice."""
    mutator = next((mutator for suffix, mutator in BY_SUFFIX.items() if name.endswith(suffix)), of_bytes)
    damaged = mutator(raw, rng)
    return of_bytes(damaged, rng) if rng.random() < 0.1 else damaged
