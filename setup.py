"""Builds the Cython extensions; everything else about the package stands in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent
DEBUG = os.environ.get("L4LB_BUILD", "")

# The core is small integer code over raw pointers: bounds are checked by its own logic and proven
# by the fuzzer and the address sanitizer (`make asan`), not by a check at every index.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "freethreading_compatible": False,
}
FLAGS = ["-O3", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-unused-parameter"]
LINK: list[str] = []
if DEBUG == "asan":
    FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-strict-aliasing"]
    LINK = ["-fsanitize=address,undefined"]


def extensions() -> list[Extension]:
    """One extension for every .pyx below ext/, named by its path."""
    found = []
    for source in sorted((HERE / "ext").rglob("*.pyx")):
        relative = source.relative_to(HERE / "ext").with_suffix("")
        found.append(
            Extension(
                ".".join(relative.parts),
                [str(source.relative_to(HERE))],
                extra_compile_args=FLAGS,
                extra_link_args=LINK,
            )
        )
    return found


setup(
    ext_modules=cythonize(
        extensions(),
        include_path=["ext"],
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
        nthreads=0,
        quiet=True,
    )
)
