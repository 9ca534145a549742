"""%%bash for the site's pages: all that the commands say, in the order they say it, and no terminal. See conf.py."""

import subprocess

from IPython.core.magic import register_cell_magic


@register_cell_magic
def bash(line: str, cell: str) -> None:
    done = subprocess.run(["bash", "-c", cell], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    done.check_returncode()
