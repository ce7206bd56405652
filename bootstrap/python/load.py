"""From a specialisation to a callable: the import path, the handler's module, and the adapter that speaks its model."""

import os
import sys

from . import failure

# Where installed packages are, below the code, in the order in which they are searched.
_PACKAGE_FOLDERS = ("python_modules", ".python_packages/lib/site-packages")
_ENVIRONMENT_FOLDERS = (".venv", "venv")


# Code of the kinds that handlers consist of: what it takes to compile it is read from disk the first time.
_REHEARSAL = """
import json, os
from collections import deque as queue
NAME = "x" + repr(1.5)

class Thing(object):
    kind: str = f"{NAME!r:>8}"

    @property
    def value(self):
        return {key: [part for part in text.split(",") if part] for key, text in os.environ.items()}

def handler(event, context=None, *rest, **more):
    global NAME
    try:
        with open(os.devnull, "rb") as file:
            lines = [line.split(b":", 1) for line in file.read().splitlines()]
    except (OSError, ValueError) as error:
        raise RuntimeError("failed") from error
    while not lines and len(rest) > 0:
        lines += rest[:-1]
    return json.dumps({**more, "a": lambda: (yield), "b": event["c"].d if event else -1})

async def later():
    async with handler() as it:
        return await it
"""
# Adapters that were loaded before it was known whether they are needed, by their paths.
_rehearsed = {}


def rehearse(paths):
    """Loads adapters, and does once what loading a handler does, so that the real one finds it done."""
    for path in paths:
        failure.adapter_files.add(path)
        _rehearsed[path] = _import_file("koine_bootstrap.handler_%d" % len(_rehearsed), path)
    for _ in range(2):
        exec(compile(_REHEARSAL, "rehearsal", "exec"), {})


def prepare_process(specialisation):
    """Sets the environment, the working directory and `sys.path`."""
    code_path = specialisation["codePath"]
    os.environ.update(specialisation["environment"])
    if "TZ" in specialisation["environment"]:
        from time import tzset

        tzset()
    try:
        os.chdir(code_path)
    except OSError as thrown:
        raise failure.load_failed_because("there is no code at %s: %s" % (code_path, thrown.strerror)) from None
    _set_search_path(code_path)
    if "KOINE_API" in specialisation["environment"]:
        _offer_client(specialisation["adapters"])
    _add_builtins()


def _offer_client(adapters):
    """Lets code that may ask the platform import `koine`, unless its package has one of its own."""
    for adapter in adapters:
        if adapter["dialect"] == "native":
            sys.path.append(os.path.join(os.path.dirname(adapter["path"]), "client"))
            return


def load_handler(specialisation, instance):
    """`(adapter, handler)`. Raises LoadFailure."""
    explicit = specialisation["handlerModel"] != "auto"
    adapters = _load_adapters(specialisation)
    found = _find(specialisation["handler"], specialisation["codePath"])
    instance.handler_name = name = found[1]
    for adapter in adapters:
        if hasattr(adapter, "prepare"):
            adapter.prepare(instance, explicit)
    module = _import_handler(specialisation["handler"], found, specialisation["codePath"])
    if name is not None and _attribute(module, name) is None:
        exports = _exports(module)
        raise failure.not_found("module '%s' has no '%s'; %s" % (module.__name__, name, _list(exports)), exports)
    target = _Named(module, name) if name is not None and "." in name else module
    for adapter in adapters:
        handler = adapter.select(target, name)
        if handler is None and explicit and name is not None and callable(_attribute(module, name)):
            handler = _attribute(module, name)
        if handler is not None:
            return adapter, handler
    exports = _exports(module)
    what = "'%s' of module '%s'" % (name, module.__name__) if name else "module '%s'" % module.__name__
    models = ", ".join(adapter.MODEL for adapter in adapters)
    raise failure.not_found("%s has nothing that a handler model knows (%s); %s" % (what, models, _list(exports)), exports)


def _load_adapters(specialisation):
    wanted = specialisation["handlerModel"]
    chosen = [one for one in specialisation["adapters"] if wanted in ("auto", one["model"])]
    if not chosen:
        known = ", ".join(one["model"] for one in specialisation["adapters"])
        message = "there is no handler model '%s' for Python; known: %s" % (wanted, known)
        raise failure.LoadFailure({"code": "unknown-handler-model", "message": message, "detail": "python"})
    adapters = []
    for one in chosen:
        failure.adapter_files.add(one["path"])
        name = "koine_bootstrap.handler_%s_%s" % (one["dialect"], one["model"])
        adapters.append(_rehearsed.get(one["path"]) or _import_file(name.replace("-", "_"), one["path"]))
    return adapters


def _import_handler(handler, found, code_path):
    module_name, _, file = found
    folder = os.path.dirname(file) if file else None
    if folder and folder != code_path and folder not in sys.path:
        sys.path.append(folder)
    try:
        loaded = sys.modules.get(module_name)
        if file and loaded is not None and getattr(loaded, "__file__", None) != file:
            # The user's file has the name of a module that is in use already, such as `json.py`.
            return _import_file("koine_code_" + module_name, file)
        __import__(module_name)
        return sys.modules[module_name]
    except failure.LoadFailure:
        raise
    except SyntaxError as thrown:
        raise failure.LoadFailure(failure.describe_syntax_error(thrown, code_path)) from None
    except SystemExit as thrown:
        message = "the module called sys.exit(%s) while it was loaded" % ("" if thrown.code is None else repr(thrown.code))
        described = dict(failure.describe_thrown(thrown), code="handler-load-failed", message=message, detail=message)
        raise failure.LoadFailure(described) from None
    except ModuleNotFoundError as thrown:
        if file is None and thrown.name is not None and (module_name + ".").startswith(thrown.name + "."):
            raise failure.not_found("there is no file for '%s'; %s" % (handler, _files(code_path))) from None
        raise failure.load_failed(thrown) from None
    except BaseException as thrown:  # noqa: BLE001 - a module may raise what it likes
        raise failure.load_failed(thrown) from None


def _find(handler, code_path):
    """Module name, attribute name or None, file or None: `dir/module.attr`, `module`, `module:attr`, `module.py`."""
    text = handler[2:] if handler.startswith("./") else handler
    text, colon, attribute = text.partition(":")
    dotted = (text[:-3] if text.endswith(".py") else text).strip("/").replace("/", ".")
    file = _module_file(dotted, code_path)
    if colon or file is not None:
        return dotted, attribute or None, file
    module_name, dot, name = dotted.rpartition(".")
    if not dot:
        raise failure.not_found("there is no file for '%s'; %s" % (handler, _files(code_path)))
    # `app.py.handler` names a file, too.
    if module_name.endswith(".py") and _module_file(module_name[:-3], code_path):
        module_name = module_name[:-3]
    return module_name, name, _module_file(module_name, code_path)


def _module_file(dotted, code_path):
    path = os.path.join(code_path, *dotted.split("."))
    for file in (path + ".py", os.path.join(path, "__init__.py")):
        if os.path.isfile(file):
            return file
    return None


def _import_file(name, file):
    from importlib.machinery import ModuleSpec, SourceFileLoader

    loader = SourceFileLoader(name, file)
    spec = ModuleSpec(name, loader, origin=file)
    spec.has_location = True
    module = type(sys)(name)
    module.__spec__ = spec
    module.__file__ = file
    module.__loader__ = loader
    module.__package__ = name.rpartition(".")[0]
    sys.modules[name] = module
    loader.exec_module(module)
    return module


class _Named:
    """Shows an attribute of an attribute (`module:object.method`) under its dotted name, as if the module held it."""

    def __init__(self, module, name):
        self.__name__ = module.__name__
        setattr(self, name, _attribute(module, name))


def _attribute(module, name):
    value = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _exports(module):
    """Names of what the module itself offers to call."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
    ]


def _list(names):
    return "it defines " + ", ".join(sorted(names)[:20]) if names else "it defines nothing that can be called"


def _files(code_path):
    found = sorted(name for name in os.listdir(code_path) if name.endswith(".py"))[:20]
    return "the package has " + ", ".join(found) if found else "the package has no Python file at its top"


def _set_search_path(code_path):
    version = "python%d.%d" % sys.version_info[:2]
    folders = [os.path.join(code_path, folder) for folder in _PACKAGE_FOLDERS]
    folders += [os.path.join(code_path, folder, "lib", version, "site-packages") for folder in _ENVIRONMENT_FOLDERS]
    folders = [folder for folder in folders if os.path.isdir(folder)]
    given = [folder for folder in os.environ.get("PYTHONPATH", "").split(":") if folder]
    sys.path[:0] = [code_path, *given]
    for folder in folders:
        if any(name.endswith(".pth") for name in os.listdir(folder)):
            import site

            site.addsitedir(folder)
        else:
            sys.path.append(folder)


def _add_builtins():
    """What `site` would have added and scripts rely on."""
    import builtins

    def leave(code=None):
        raise SystemExit(code)

    for name in ("exit", "quit"):
        if not hasattr(builtins, name):
            setattr(builtins, name, leave)


