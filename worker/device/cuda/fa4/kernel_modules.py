"""Imports the modules of FlashAttention-4 that hold its kernels, and nothing around them.

The packages' own __init__ files import their PyTorch front ends. The kernels use PyTorch in names of types only, so
an empty stand-in serves, and no gigabytes of it need be installed to compile a kernel.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings


class _AnyType(type):
    """A class that has every attribute, each another such class."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyType(name, (), {})


class _StandIn(types.ModuleType):
    __path__ = []
    __version__ = "0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = _AnyType(name, (), {})
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "torch_c_dlpack_ext"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


def _bare_package(name):
    """The package without what its __init__ does."""
    spec = importlib.util.find_spec(name)
    module = types.ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations)
    module.__spec__ = spec
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


warnings.filterwarnings("ignore", module="tvm_ffi")
sys.meta_path.insert(0, _Finder())
for _name in ("flash_attn", "flash_attn.cute", "quack"):
    _bare_package(_name)
importlib.import_module("quack.dsl")  # what quack's __init__ does to tensors' indexing, which the kernels use
