"""``python -m testudo_client.deployment.healthcheck``: is an owner's node well? An exit status for containers.

Asks the node's gRPC health service on this machine (grpc.health.v1): 0 if it serves, else 1.
"""

from __future__ import annotations

from typing import Annotated

import typer

from testudo_common.commands import run_command
from testudo_common.errors import UsageError

TIMEOUT_SECONDS = 5.0


def ask(where: str) -> None:
    """Return if the node serves.

    Args:
        where: ``127.0.0.1:PORT`` of its health service.

    Raises:
        UsageError: It does not, or nobody answers there.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # No proxy stands between two processes of one machine.
    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="testudo.client"), timeout=TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            raise UsageError("nobody answers", where=where, remedy="run the node with --health") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise UsageError("the node is not connected", where=where, remedy="ask testudo-client doctor why")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    health: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Of the node's --health.")] = "127.0.0.1:9094",
) -> None:
    """Say whether the node is well."""
    ask(health)
    typer.echo("serving")


if __name__ == "__main__":
    run_command(app)
