"""`l7lb import-nginx`: a configuration of nginx as ours."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from l4lb.console import output
from l4lb.console.options import json_option
from l4lb.errors import ConfigError


@click.command("import-nginx")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), metavar="PATH", help="Write it there."
)
@click.option("--strict", is_flag=True, help="Fail where a line is not carried over, with exit code 2.")
@click.option("--all", "shows_all", is_flag=True, help="Name lines that need no counterpart, too.")
@json_option
def import_nginx(file: Path, target: Path | None, strict: bool, shows_all: bool, as_json: bool) -> None:
    """Print the configuration of nginx in FILE, and what it includes, as one of l7lb.

    Snippets are read, too. Comments name the lines of nginx's; what nginx does without being told is written
    out. What cannot be carried over is said on standard error, line by line.

    \b
    Example:
      l7lb import-nginx /etc/nginx/nginx.conf -o /etc/l4lb/l4lb.yaml
      l7lb check -c /etc/l4lb/l4lb.yaml
    """
    from l7.nginx.convert import import_nginx as convert
    from l7.nginx.remarks import Kind

    imported = convert(file)
    shown = [one for one in imported.remarks if shows_all or one.kind is not Kind.NEEDLESS]
    if target:
        target.write_text(imported.text)
    if as_json:
        output.print_json(
            {
                "ok": imported.is_whole or not strict,
                "config": None if target else imported.text,
                "remarks": [
                    {
                        "kind": one.kind.value,
                        "file": one.file,
                        "line": one.line,
                        "directive": one.directive,
                        "text": one.text,
                    }
                    for one in shown
                ],
            }
        )
    else:
        for one in shown:
            print(one, file=sys.stderr)
        if target is None:
            print(imported.text, end="")
    if strict and not imported.is_whole:
        sys.exit(ConfigError.exit_code)
