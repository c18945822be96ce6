"""The commands about experiments: run and validate."""

from pathlib import Path

import click

from chaos.cli.rig_commands import as_json

__all__ = ["run", "validate"]

_files = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command(
    epilog="\b\nExamples:\n  blackstart run chaos/experiments/node-power-cut.yaml\n"
    "  blackstart run --dry my.yaml          read the file, say what would be done, do nothing\n"
    "  blackstart run --keep-rig my.yaml     and look at the rig afterwards: blackstart status"
)
@_files
@click.option("--arena", type=click.Choice(["docker"]), default="docker", show_default=True, help="Where it runs.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True)
@click.option("--journal", type=click.Path(dir_okay=False, path_type=Path), help="A further place for journal.json.")
@click.option("--name", "rig", help="The name of the rig that is made.")
@click.option("--on-rig", help="Run on a rig that stands already, and leave it standing.")
@click.option("--keep-rig", is_flag=True, help="Leave the rig standing afterwards.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides where a target leaves a choice.")
@click.option("--dry", is_flag=True, help="Read the files, say what would be done, do nothing.")
def run(
    files: tuple[Path, ...],
    arena: str,
    out: Path,
    journal: Path | None,
    rig: str | None,
    on_rig: str | None,
    keep_rig: bool,
    seed: int,
    dry: bool,
) -> int:
    """Run experiments and end with the verdict as exit code."""
    from chaos.options import RunOptions
    from chaos.runner import run_files

    options = RunOptions(
        arena=arena, out=out, rig=rig, on_rig=on_rig, keep_rig=keep_rig, journal=journal, seed=seed, dry=dry
    )
    return int(run_files(files, options=options))


@click.command(epilog="\b\nExample:\n  blackstart validate chaos/experiments/*.yaml")
@_files
@as_json
def validate(files: tuple[Path, ...], json_wanted: bool) -> int:
    """Read experiments and say what is wrong, with file, line and the expected form.

    Ends with 2 when a file is refused. Needs no engine.
    """
    from chaos.cli.output import print_json
    from chaos.experiment import load_experiment
    from harness.errors import UsageError

    titles: dict[Path, str] = {}
    refusals: dict[Path, list[str]] = {}
    for file in files:
        try:
            titles[file] = load_experiment(file).title
        except UsageError as error:
            refusals[file] = str(error).splitlines()
    if json_wanted:
        print_json(
            [
                {
                    "file": str(file),
                    "valid": file in titles,
                    "title": titles.get(file, ""),
                    "errors": refusals.get(file, []),
                }
                for file in files
            ]
        )
    else:
        for file, title in titles.items():
            click.echo(f"{file}: valid: {title}")
        for line in (line for lines in refusals.values() for line in lines):
            click.echo(line, err=True)
    return 2 if refusals else 0
