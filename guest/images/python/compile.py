"""Compiles the modules of a layer of packages, whose directory is the argument, into /work/compiled."""

import compileall
import os
import py_compile
import sys

sys.pycache_prefix = "/work/compiled"
os.mkdir(sys.pycache_prefix)
# What is of another version of Python, or a template, does not compile, and is left as it is. The compiled
# forms are taken without a look at the source, which is as old as they are.
compileall.compile_dir(
    sys.argv[1], quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
)
