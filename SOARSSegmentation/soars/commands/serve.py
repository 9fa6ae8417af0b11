"""``soars serve``: a DICOM node that contours what it receives."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from soars.errors import InputError

log = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="run a DICOM node that contours what it receives",
        description="Receive CTs (C-STORE, or fetched from an archive), contour those that a rule is for, and send the "
        "contours on, until it is stopped. Settings and rules are in one YAML file; see docs/node.md. For research; "
        "not a medical device; every contour must be reviewed.",
    )
    parser.add_argument("settings", metavar="FILE", type=Path, nargs="?", help="the settings (YAML)")
    parser.add_argument(
        "--check", action="store_true", help="only say whether the settings and their bundles can be used"
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of the settings, for editors"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; errors are `soars.errors.SoarsError`."""
    from soars.node.config import read_config, remarks, schema_text

    if args.schema:
        print(schema_text())
        return 0
    if args.settings is None:
        raise InputError("give the file with the settings (see soars serve --help)")
    config = read_config(args.settings)
    for remark in remarks(config):
        log.warning("%s", remark)
    if args.check:
        return _check(args.settings)
    from soars.node.serve import Node, serve

    def started(node: Node) -> None:
        titles = ", ".join(config.listen.ae_titles)
        print(f"{titles} on {config.listen.host}:{node.receiver.port}, state in {config.state}", flush=True)

    serve(config, started)
    return 0


def _check(path: Path) -> int:
    from soars.node.config import read_config
    from soars.node.deliver import client_context
    from soars.node.receive import server_context
    from soars.service.segmenter import Segmenter

    config = read_config(path)
    server_context(config.listen.tls)
    for destination in config.destinations.values():
        client_context(destination.tls)
    for rule in config.rules:
        bundle = Segmenter(rule.options).bundle
        organs = len(rule.organs) if rule.organs is not None else len(bundle.organs)
        targets = ", ".join(rule.send) or "nowhere (results stay in the state folder)"
        print(f"rule {rule.name}: {bundle.name} {bundle.version}, {organs} organs, sent to {targets}")
    print(f"{path} can be used")
    return 0
