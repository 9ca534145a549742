"""Runs the pages of the site several at a time, before Sphinx reads them one after another. See conf.py."""

import concurrent.futures
import os
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.execute import ExecutionError
from myst_nb.core.read import create_nb_reader
from sphinx.util import logging

LOG = logging.getLogger(__name__)


def cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def notebooks(env, names):
    """The pages that have cells, read as myst-nb reads them: {path: notebook}."""
    found = {}
    for name in sorted(names):
        path = Path(env.doc2path(name))
        text = path.read_text(encoding="utf8")
        reader = create_nb_reader(str(path), env.myst_config, env.mystnb_config, text)
        if reader is not None:
            found[path] = reader.read(text)
    return found


def fresh(cache, notebook):
    """Whether the cache has no outputs of this code."""
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        return True
    return False


def execute(app, env, names):
    """Run the pages that were not run with this code before, one on each core, and keep their outputs for myst-nb.

    The first page that fails ends the build once the pages that run beside it have ended.
    """
    config = env.mystnb_config
    if config.execution_mode != "cache":
        return
    cache = get_cache(config.execution_cache_path)
    pages = {path: notebook for path, notebook in notebooks(env, names).items() if fresh(cache, notebook)}
    workers = min(cores(), len(pages))
    if workers < 2:
        return  # myst-nb runs a single page itself
    # every page's own programs share the cores: more threads than cores would slow all of them down
    os.environ.setdefault("OMP_NUM_THREADS", str(cores() // workers))

    def run(path):
        return single_nb_execution(
            pages[path], cwd=str(path.parent), timeout=config.execution_timeout, allow_errors=False
        )

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(run, path): path for path in pages}
        try:
            for done in concurrent.futures.as_completed(running):
                path, result = running[done], done.result()
                if result.err is not None:
                    LOG.error("a cell failed\n%s", result.exc_string, location=env.path2doc(path))
                    raise ExecutionError(str(path)) from result.err
                LOG.info("ran %s in %.1f s", path.name, result.time)
                bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
