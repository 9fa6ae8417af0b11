"""``soars bundle``: list, show, verify, import and remove model bundles; `models` handles models of others."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from soars.commands.bundle import models
from soars.words import plain

if TYPE_CHECKING:
    from soars.bundle.store import Bundle
    from soars.systems.interface import System


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "bundle",
        help="list, show, verify, import, remove and complete model bundles",
        description="Model bundles: trained weights with a manifest and a model card, as a folder or a .zip. "
        "Imported bundles are kept in $SOARS_BUNDLES, by default the user's application data folder.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="list the shipped and the imported bundles")
    show = actions.add_parser("show", help="show a bundle's organs, branches and model card")
    show.add_argument("bundle", metavar="NAME|PATH", help="an installed bundle, a folder or a .zip")
    check = actions.add_parser("verify", help="check the manifest and the SHA-256 of every file")
    check.add_argument("bundle", metavar="NAME|PATH", help="an installed bundle, a folder or a .zip")
    add = actions.add_parser("import", help="check a bundle and install it for this user")
    add.add_argument("path", metavar="PATH", help="a folder or a .zip")
    add.add_argument("--name", help="install it under this name (default: its own name)")
    add.add_argument("--overwrite", action="store_true", help="replace an imported bundle of the same name")
    models.add_actions(actions)
    gone = actions.add_parser("remove", help="remove an imported bundle")
    gone.add_argument("name", metavar="NAME", help="the name under which it was imported")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; errors are `soars.errors.BundleError`."""
    actions = {
        "list": _list,
        "show": _show,
        "verify": _verify,
        "import": _import,
        "import-nnunet": models.import_nnunet,
        "get": models.get,
        "needs": models.needs,
        "remove": _remove,
    }
    return actions[args.action](args)


def _list(_args: argparse.Namespace) -> int:
    from soars.bundle.store import list_bundles, user_folder

    rows = []
    entries = list_bundles()
    for entry in entries:
        where = "shipped" if entry.shipped else str(entry.folder)
        if entry.bundle is None:
            rows.append((entry.name, "-", "damaged", "-", "-", "-", where))
            continue
        b = entry.bundle
        rows.append(
            (
                entry.name,
                b.version,
                _coverage(b),
                ", ".join(b.branches) or b.system,
                b.licence,
                _size(b.size_bytes),
                where,
            )
        )
    if rows:
        print(_table(("name", "version", "organs", "made by", "licence", "size", "location"), rows))
    else:
        print(f"no bundles installed; import one with: soars bundle import PATH (kept in {user_folder()})")
    for entry in entries:
        if entry.problem:
            print(f"\n{entry.name}: {entry.problem}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from soars.bundle.store import load_bundle
    from soars.catalogue import SOARS42
    from soars.systems.registry import system_of

    bundle = load_bundle(args.bundle)
    system = system_of(bundle)
    print(f"{bundle.name} {plain(bundle.version)}: {plain(bundle.description)}")
    print(f"licence {plain(bundle.licence)}, {_size(bundle.size_bytes)}, SHA-256 {system.sha256}")
    sources = [(one.bundle, one.version, one.sha256) for one in system.sources if one.bundle != bundle.name]
    if sources:
        print("\n" + _table(("source", "version", "SHA-256"), sources))
    print(f"\norgans: {_coverage(bundle)}\n{_wrapped(bundle.organs)}")
    missing = [name for name in SOARS42 if name not in bundle.organs]
    print(f"not covered: {len(missing)}" + (f"\n{_wrapped(missing)}" if missing else ""))
    print("\n" + (_branches(bundle) if bundle.branches else _state(bundle, system)))
    print(f"\n{bundle.card.rstrip()}")
    return 0


def _branches(bundle: Bundle) -> str:
    header = ("branch", "input", "classes", "output", "spacing mm", "patch", "features", "weights")
    rows = [
        (
            b.name,
            " + ".join(b.inputs),
            str(len(b.classes)),
            b.activation,
            " x ".join(f"{s:g}" for s in b.spacing_mm),
            " x ".join(str(n) for n in reversed(b.patch)),
            "-".join(str(f) for f in b.architecture.features),
            ", ".join(b.files),
        )
        for b in bundle.branches.values()
    ]
    return _table(header, rows)


def _state(bundle: Bundle, system: System) -> str:
    """For a system other than the cascade: whether all the bundle's organs can be segmented here, and if not, why."""
    problems = dict.fromkeys(system.problem((organ,)) for organ in bundle.organs)
    lacking = [f"  {problem}" for problem in problems if problem is not None]
    return "\n".join(
        [
            f"system: {bundle.system}" + (", ready" if not lacking else "; parts of it are missing here:"),
            *lacking,
        ]
    )


def _verify(args: argparse.Namespace) -> int:
    from soars.bundle.store import load_bundle
    from soars.systems.registry import system_of

    bundle = load_bundle(args.bundle)  # its warnings are logged
    system_of(bundle)  # checks the settings
    files = len(bundle.files) + 1
    print(
        f"{bundle.name} {bundle.version}: {files} files as published, {_coverage(bundle)} organs, "
        f"{bundle.sha256}"
    )
    return 0


def _import(args: argparse.Namespace) -> int:
    from soars.bundle.install import import_bundle

    bundle = import_bundle(args.path, args.name, overwrite=args.overwrite)
    print(f"imported {bundle.folder.name} {bundle.version} ({_coverage(bundle)} organs) into {bundle.folder}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from soars.bundle.install import remove_bundle

    folder = remove_bundle(args.name)
    print(f"removed {args.name} (it was in {folder.parent})")
    return 0


def _coverage(bundle: Bundle) -> str:
    """How many of the 42 OARs, and how many others, the bundle segments."""
    from soars.catalogue import SOARS42

    inside = sum(name in SOARS42 for name in bundle.organs)
    others = len(bundle.organs) - inside
    return f"{inside} of {len(SOARS42)}" + (f" + {others} others" if others else "")


def _wrapped(names: Sequence[str]) -> str:
    return textwrap.fill(", ".join(names), 100, initial_indent="  ", subsequent_indent="  ")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * w for w in widths], *rows]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
