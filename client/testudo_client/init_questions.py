"""The short wizard of ``testudo-client init``: a question for what only the owner can know, the options as defaults."""

from __future__ import annotations

from dataclasses import replace

import typer

from testudo_client.init_command import InitRequest, key_in_folder


def asked(request: InitRequest) -> InitRequest:
    """What was answered.

    Raises:
        KeyFileError: What was given as the federation's key is none.
        UsageError: Another key lies in the folder.
    """
    client = request.client or typer.prompt("Your name in the federation")
    request = replace(request, client=client)
    if not request.no_privacy:
        request = replace(
            request,
            epsilon_per_run=typer.prompt(
                "Epsilon: the most that one plan may spend", request.epsilon_per_run, type=float
            ),
            epsilon_for_life=typer.prompt(
                "Epsilon: the most that all plans together may ever spend", request.epsilon_for_life, type=float
            ),
            delta=typer.prompt("Delta, well under one over the number of your examples", request.delta, type=float),
        )
    often = typer.prompt("Rounds of one plan that you may take part in", request.max_participations, type=int)
    models = typer.prompt("Models that may be trained", ", ".join(request.models))
    request = replace(
        request, max_participations=often, models=[name.strip() for name in models.split(",") if name.strip()]
    )
    return replace(request, federation_key=_federation_key(request))


def _federation_key(request: InitRequest) -> str | None:
    """The key to pin. What lies in the folder counts only once it was compared: no answer pins nothing."""
    found = key_in_folder(request)
    if request.federation_key is not None:
        return request.federation_key
    if found is None:
        told: str = typer.prompt("The federation's key, if you were told it", default="", show_default=False)
        return told.strip() or None
    typer.echo(f"federation.pub in your folder holds {found}")
    return found if typer.confirm("Did the federation tell you this key by another way?") else None
