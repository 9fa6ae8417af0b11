"""``soars network``: send an RTSTRUCT to an archive, fetch a CT series from it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from soars.commands.options import add_progress_option
from soars.progress import reporting
from soars.words import plain


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "network",
        help="send to and fetch from a DICOM archive",
        description="Send DICOM files to an archive (C-STORE) and fetch a CT series from it (DICOMweb). Archives are "
        "configured once, with add, and kept in $SOARS_NODES, by default in the user's application data.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="configure an archive")
    add.add_argument("name", metavar="NAME", help="the name to use for it here")
    add.add_argument("--host", required=True, help="name or IP address")
    add.add_argument("--port", required=True, type=int, help="DICOM port, often 104 or 11112")
    add.add_argument("--ae-title", required=True, help="its application entity title")
    add.add_argument(
        "--calling-ae-title", default="SOARS", help="ours, as the archive knows it (default: SOARS)"
    )
    add.add_argument("--web", default="", metavar="URL", help="its DICOMweb address, for find and fetch")
    add.add_argument(
        "--token-over-http",
        action="store_true",
        help="send it $SOARS_DICOMWEB_TOKEN even when its address begins with http://, where others can read it",
    )
    add.add_argument("--overwrite", action="store_true", help="replace one of the same name")
    actions.add_parser("list", help="list the configured archives")
    _named(actions.add_parser("remove", help="remove an archive from the list"))
    _named(actions.add_parser("echo", help="check that an archive responds and knows us (C-ECHO)"))
    send = _named(actions.add_parser("send", help="send DICOM files (C-STORE)"))
    send.add_argument("files", metavar="FILE", nargs="+", type=Path, help="such as rtstruct.dcm")
    add_progress_option(send)
    find = _named(actions.add_parser("find", help="list the CT series of a patient or a study (QIDO-RS)"))
    find.add_argument("--patient", default="", metavar="ID", help="patient ID")
    find.add_argument("--study", default="", metavar="UID", help="study instance UID")
    fetch = _named(actions.add_parser("fetch", help="fetch a CT series into a new folder (WADO-RS)"))
    fetch.add_argument("--study", required=True, metavar="UID", help="study instance UID")
    fetch.add_argument("--series", required=True, metavar="UID", help="series instance UID")
    fetch.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty folder")
    add_progress_option(fetch)


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", help="a configured archive")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; errors are `soars.errors.InputError`."""
    return {
        "add": _add, "list": _list, "remove": _remove, "echo": _echo, "send": _send, "find": _find, "fetch": _fetch,
    }[args.action](args)  # fmt: skip


def _add(args: argparse.Namespace) -> int:
    from soars.archive.nodes import Node, add_node, nodes_file

    node = Node(
        args.name, args.host, args.port, args.ae_title, args.calling_ae_title, args.web, args.token_over_http
    )
    add_node(node, overwrite=args.overwrite)
    print(f"{node.name} is kept in {nodes_file()}; try it with: soars network echo {node.name}")
    return 0


def _list(_args: argparse.Namespace) -> int:
    from soars.archive.nodes import nodes_file, read_nodes

    nodes = read_nodes()
    if not nodes:
        print(f"no archive is configured; add one with: soars network add (kept in {nodes_file()})")
    for node in nodes.values():
        web = f", {node.web}" if node.web else ""
        print(f"{node.name}: {node.ae_title} at {node.host}:{node.port}, we are {node.calling_ae_title}{web}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from soars.archive.nodes import remove_node

    remove_node(args.name)
    print(f"{args.name} was removed")
    return 0


def _echo(args: argparse.Namespace) -> int:
    from soars.archive.dimse import echo
    from soars.archive.nodes import find_node

    node = find_node(args.name)
    echo(node)
    print(f"{node.name} responds and knows {node.calling_ae_title}")
    return 0


def _send(args: argparse.Namespace) -> int:
    from soars.archive.dimse import send
    from soars.archive.nodes import find_node

    node = find_node(args.name)
    with reporting(args.progress) as report:
        sent = send(node, args.files, report=report)
    for one in sent:
        print(f"{node.name} has {one.path}" + (f" ({one.remark})" if one.remark else ""))
    return 0


def _find(args: argparse.Namespace) -> int:
    from soars.archive.nodes import find_node
    from soars.archive.web import find_series

    found = find_series(find_node(args.name), patient_id=args.patient, study_uid=args.study)
    for one in found:
        images = f"{one.instances} images" if one.instances is not None else "images not counted"
        date, description = plain(one.date) or "-", plain(one.description) or "(no description)"
        print(f"{date}  {description}  {images}")
        print(f"  --study {one.study_uid} --series {one.series_uid}")
    if not found:
        print("no CT series is there")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from soars.archive.nodes import find_node
    from soars.archive.web import fetch_series

    with reporting(args.progress) as report:
        files = fetch_series(find_node(args.name), args.study, args.series, args.output, report=report)
    command = shlex.join(["soars", "segment", str(args.output), "--output"])
    print(f"{len(files)} images in {args.output}; segment them with: {command} DIR")
    return 0
