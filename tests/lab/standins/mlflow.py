"""MLflow's tracking server as far as a run with one metric goes; what was logged is written into the book."""

from __future__ import annotations

import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_RUN = {"run_id": "r1", "run_uuid": "r1", "run_name": "lab", "experiment_id": "1", "user_id": "alice"}
_INFO = {
    **_RUN,
    "status": "RUNNING",
    "start_time": 1,
    "artifact_uri": "mlflow-artifacts:/1/r1",
    "lifecycle_stage": "active",
}
_EXPERIMENT = {
    "experiment_id": "1",
    "name": "lab",
    "artifact_location": "mlflow-artifacts:/1",
    "lifecycle_stage": "active",
}


def service(world: World) -> object:
    """Below /api/2.0/mlflow (mlflow.org, REST API)."""
    logs = {"POST runs/log-metric", "POST runs/log-batch"}
    answers = {
        "GET experiments/get-by-name": {"experiment": _EXPERIMENT},
        "GET experiments/get": {"experiment": _EXPERIMENT},
        "POST runs/create": {"run": {"info": _INFO, "data": {}}},
        "GET runs/get": {"run": {"info": _INFO, "data": {}}},
        "POST runs/update": {"run_info": {**_INFO, "status": "FINISHED"}},
        "POST runs/set-tag": {},
        **{line: {} for line in logs},
    }

    @Request.application
    def answer(request: Request) -> Response:
        line = f"{request.method} {request.path.removeprefix('/api/2.0/mlflow/')}"
        if line not in answers:
            world.write(kind="unknown", service="mlflow", line=line)
            return Response('{"error_code": "ENDPOINT_NOT_FOUND", "message": "not known here"}', 404)
        if line in logs:
            text = request.get_data(as_text=True)
            world.write(kind="logged", service="mlflow", address=request.remote_addr, text=text)
        return Response(json.dumps(answers[line]), mimetype="application/json")

    return answer
