"""`controlplane init`: a runner project to begin with: handlers, their test, and how to run them."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from controlplane.cli.asking import examples, fail

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")

HANDLERS: Final = '''"""The runner {name}: `controlplane runner {name}:runner` in this folder."""

from pydantic import BaseModel, Field

from controlplane.runner import JobContext, NonRetryable, Runner

runner = Runner("{name}", slots=8)


class Text(BaseModel):
    """What a job is given; a payload that does not fit is refused at the edge, with the field's name."""

    subject: str = Field(examples=["page:welcome"])
    text: str


class Counted(BaseModel):
    """What comes of it."""

    words: int


@runner.capability("{name}.count", version="1.0.0", timeout=30)
async def count(payload: Text, job: JobContext) -> Counted:
    """Count words, say how far it is, and claim what is now known."""
    if not payload.text.strip():
        raise NonRetryable(f"Expected text about {{payload.subject}}, but found none.")
    words = len(payload.text.split())
    job.log.info("counted %d words of %s", words, payload.subject)
    await job.progress(0.9, "counted")
    job.claim(payload.subject, "words", words, confidence=0.99)
    return Counted(words=words)
'''

TEST: Final = '''"""The handlers of {name}, run as a runner runs them, without a log."""

from controlplane.runner.testing import run_handler

from {name} import Counted, runner


def test_words_are_counted_and_claimed() -> None:
    run = run_handler(runner, "{name}.count", {{"subject": "page:welcome", "text": "good day to you"}})
    assert run.result == Counted(words=4)
    assert [claim.predicate for claim in run.claims] == ["words"]


def test_nothing_to_count_is_refused_for_good() -> None:
    run = run_handler(runner, "{name}.count", {{"subject": "page:empty", "text": " "}})
    assert run.error is not None
    assert not run.error.retryable
'''

README: Final = """# {name}

    controlplane up                                   # in one terminal: the whole system
    controlplane runner {name}:runner                 # in another, in this folder: the handlers
    controlplane submit {name}.count --payload '{{"subject": "page:welcome", "text": "good day to you"}}' --wait
    controlplane truth page:welcome                   # what is known now, and who says so
    pytest                                            # the handlers alone, without the system

The console is at http://127.0.0.1:8400/console/.
"""


def init(
    name: Annotated[str, typer.Argument(help="Name of the runner and of its folder: small letters, digits, _.")],
    folder: Annotated[Path | None, typer.Option(help="Where to make the folder; default: here.")] = None,
) -> None:
    """Make a folder with a runner to begin with: a handler, its test, and how to run it."""
    if not NAME.fullmatch(name) or name == "controlplane":
        fail(
            f"Expected small letters, digits and _, beginning with a letter, and not controlplane, but found {name}.",
            code=2,
        )
    target = (folder or Path.cwd()) / name
    if target.exists():
        fail(f"Expected to make {target}, but it is there already.", code=2)
    target.mkdir(parents=True)
    for file, text in ((f"{name}.py", HANDLERS), (f"test_{name}.py", TEST), ("README.md", README)):
        (target / file).write_text(text.format(name=name))
    print(f"Made {target}: {name}.py, test_{name}.py, README.md.\n")
    print(f"  cd {target}\n  pytest\n  controlplane runner {name}:runner")


def add_to(app: typer.Typer, panel: str) -> None:
    """Give the application this command."""
    app.command(rich_help_panel=panel, epilog=examples("controlplane init thumbnails"))(init)
