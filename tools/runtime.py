"""Make src/vaekit/explorer/runtime/ from the npm package onnxruntime-web: `python tools/runtime.py`.

Needs npm and the Python package onnxruntime. The npm package lacks the licence and the third-party notices, so they
are copied from the Python package, which is built from the same source.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.metadata
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = {"ort.mjs": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}
RUNTIME = Path(__file__).parents[1] / "src/vaekit/explorer/runtime"


def main() -> None:
    import onnxruntime

    RUNTIME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (package,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise SystemExit(f"the package has SHA-512 {digest}, expected {SHA512}")
        files = {}
        with tarfile.open(package) as archive:
            for name, source in FILES.items():
                member = archive.extractfile(f"package/dist/{source}")
                assert member is not None
                content = member.read()
                if name.endswith(".mjs"):  # drop the last line: browsers would request the source map that it names
                    content = content[: content.rindex(b"//# sourceMappingURL=")]
                (RUNTIME / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
                files[name] = {"file": f"dist/{source}", "sha256": hashlib.sha256(content).hexdigest()}
    notices = Path(onnxruntime.__file__).parent
    (RUNTIME / "LICENSE").write_bytes((notices / "LICENSE").read_bytes())
    third = (notices / "ThirdPartyNotices.txt").read_bytes()
    (RUNTIME / "ThirdPartyNotices.txt.gz").write_bytes(gzip.compress(third, 9, mtime=0))
    about = {
        "package": "onnxruntime-web",
        "version": VERSION,
        "sha512": SHA512,
        "licence": "MIT",
        "notices_of": f"onnxruntime {importlib.metadata.version('onnxruntime')}",
        "files": files,
    }
    (RUNTIME / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
