"""The commands that only look: validate, status, events, report, explain. They need the store and no controller, so
they start in a moment. Called by `main.py`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from graylift.adapters.documents import document_from
from graylift.adapters.sql_store import SqlStore
from graylift.cli.desk import newest_release, open_store, somebody_acts, view_of
from graylift.cli.installation import Installation, installation_from
from graylift.cli.live import console, print_event
from graylift.cli.reporting import ReportFormat, report_text
from graylift.cli.view import line_from_event, render
from graylift.errors import CommandRefused, SpecError
from graylift.spec import load


def validate(file: Path, *, as_json: bool) -> int:
    try:
        spec = load(file)
    except SpecError as exc:
        if not as_json:
            raise
        _print_json({"valid": False, "problems": [str(problem) for problem in exc.problems]})
        return 2
    if as_json:
        _print_json({"valid": True, "problems": [], "service": spec.service, "digest": spec.digest})
    else:
        stages = " → ".join(map(str, spec.stages))
        console.print(f"{file} is valid: {spec.service}, {spec.stable.name} → {spec.candidate.name}, {stages}")
    return 0


def status(name: str | None, state: Path | None, *, as_json: bool) -> None:
    installation = installation_from(state)
    with open_store(installation) as store:
        if name is None:
            _status_of_all(installation, store, as_json=as_json)
        elif as_json:
            _print_json(json.loads(document_from(newest_release(store, name))))
        else:
            console.print(render(view_of(store, newest_release(store, name)), time.time()))


def events(name: str | None, state: Path | None, *, follow: bool, as_json: bool) -> None:
    installation = installation_from(state)
    with open_store(installation) as store:
        seen = 0
        try:
            while (news := store.events_after(seen, service=name)) or follow:
                for told in news:
                    seen = told.number
                    if as_json:
                        sys.stdout.write(document_from(told.event) + "\n")
                    else:
                        print_event(f"{line_from_event(told.event)}  ({told.event.service})")
                if not news:
                    time.sleep(0.5)
        except KeyboardInterrupt:
            return


def report(name: str, form: ReportFormat, out: Path | None, state: Path | None) -> None:
    installation = installation_from(state)
    with open_store(installation) as store:
        text = report_text(store, newest_release(store, name).id, form)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise CommandRefused(f"cannot write {out}: {exc.strerror}") from exc
    console.print(f"wrote {out}")


def explain(name: str, state: Path | None) -> None:
    from graylift import report as pages

    with open_store(installation_from(state)) as store:
        history = store.history(newest_release(store, name).id)
    sys.stdout.write(pages.explain(history.release, history.events, history.reports))


def _status_of_all(installation: Installation, store: SqlStore, *, as_json: bool) -> None:
    services, acts = store.snapshot().services, somebody_acts(store)
    if as_json:
        _print_json(
            {
                "gateway": installation.url,
                "controller": "running" if acts else "away",
                "api": installation.api_url if acts else None,
                "services": [
                    {
                        "service": tracked.service.name,
                        "stable": tracked.service.stable.id if tracked.service.stable else None,
                        "release": tracked.release.id if tracked.release else None,
                        "phase": tracked.release.phase.value if tracked.release else None,
                        "reason": tracked.release.reason if tracked.release else None,
                    }
                    for tracked in services
                ],
            }
        )
        return
    console.print(f"gateway {installation.url}, controller {'running' if acts else 'away: `graylift up` starts one'}")
    if acts and installation.api_url is not None:
        console.print(f"page and API {installation.api_url}")
    for tracked in services:
        stable = tracked.service.stable.name if tracked.service.stable else "nothing yet"
        console.print(f"[bold]{tracked.service.name}[/bold]  stable {stable}")
        if tracked.release is not None:
            line = f"  {tracked.release.id} {tracked.release.phase.value}: {tracked.release.reason}"
            console.print(line, markup=False, soft_wrap=True)
    if not services:
        console.print("no service yet: `graylift run FILE` starts the first release")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
