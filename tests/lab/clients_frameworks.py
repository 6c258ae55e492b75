"""Frameworks that talk to themselves: on loopback and between the job's nodes directly, and out through the tunnel.

That nothing of their own went through it is looked up in its access log, for every client.
"""

from __future__ import annotations

from .clients import WWW, Client, in_python, installed, url_of
from .further import Further, python
from .standins.neptune import key

_TWO_NODES = "#SBATCH -N2 --ntasks-per-node=1 --cpus-per-task=2 --time=5"
_HOSTS = """here=$(hostname)
there=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | grep -v -x "$here")
beside() { srun --overlap -N1 -n1 -w "$there" "$@"; }
"""
_GET = f"""def get():
    import socket, urllib.request
    return socket.gethostname(), urllib.request.urlopen("{WWW}", timeout=20).read().decode()
"""
_RAY = f"""{_HOSTS}export RAY_USAGE_STATS_ENABLED=0
trap 'ray stop --force >stopped 2>&1; beside rm -rf /tmp/ray; rm -rf /tmp/ray "$work"' EXIT
ip=$(python -c 'import socket; print(socket.gethostbyname(socket.gethostname()))')
each="--num-cpus=1 --object-store-memory=80000000"
ray start --head --port=6379 --include-dashboard=false $each >head 2>&1
beside ray start --address="$ip:6379" $each --block >worker 2>&1 &
python - <<'END'
import time
import ray
{_GET}
ray.init(address="auto", log_to_driver=False)
while len([node for node in ray.nodes() if node["Alive"]]) < 2:
    time.sleep(0.2)
nodes = [node["NodeID"] for node in ray.nodes()]
chosen = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
there = [ray.remote(get).options(scheduling_strategy=chosen(node, soft=False)) for node in nodes]
got = ray.get([one.remote() for one in there], timeout=90)
assert len({{name for name, _ in got}}) == 2, got
print(got[1][1])
END
"""
_DASK = f"""{_HOSTS}dask scheduler --host "$here" --port 8786 --no-show >scheduler 2>&1 &
each="--nthreads 1 --no-dashboard --local-directory /tmp --death-timeout 60"
srun --overlap -N2 -n2 dask worker "$here:8786" $each >workers 2>&1 &
python - <<'END'
import os
from distributed import Client
{_GET}
with Client(os.uname().nodename + ":8786", timeout=60) as client:
    client.wait_for_workers(2, timeout=60)
    got = client.run(get)
    client.shutdown()
assert len({{name for name, _ in got.values()}}) == 2, got
print(list(got.values())[0][1])
END
"""
_GRADIO = f"""import os
import urllib.request
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio
import gradio_client
def get(name):
    return urllib.request.urlopen("{WWW}", timeout=20).read().decode()
demo = gradio.Interface(get, "text", "text", api_name="get")
_, url, _ = demo.launch(server_name="0.0.0.0", server_port=7860, prevent_thread_lock=True, quiet=True)
print(gradio_client.Client("http://127.0.0.1:7860", verbose=False).predict("", api_name="/get"))
print(gradio_client.Client(f"http://{{os.uname().nodename}}:7860", verbose=False).predict("", api_name="/get"))
demo.close()
"""
_TENSORBOARD = f"""python - <<'END'
import urllib.request
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.text.summary import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter("logs")
text = urllib.request.urlopen("{WWW}", timeout=20).read().decode()
writer.add_event(Event(step=1, wall_time=1.0, summary=text_pb("said", text)))
writer.close()
END
tensorboard --logdir logs --host 0.0.0.0 --port 6006 --load_fast=false >tensorboard 2>&1 &
for _ in $(seq 100); do
    curl -sS "http://$(hostname):6006/data/plugin/text/text?run=.&tag=said" >got 2>complaint || :
    grep -q text got && break
    sleep 0.3
done
kill $!
cat got
"""
_MLFLOW = f"""import os
import mlflow
mlflow.set_tracking_uri("{url_of("mlflow")}")
mlflow.set_experiment("lab")
with mlflow.start_run():
    mlflow.log_metric("loss", int(os.environ["LOSS"]))
"""
_JUPYTER = f"""mkdir home && export HOME=$work/home
cat >get.ipynb <<'END'
{{"cells": [{{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {{}}, "outputs": [], "source":
  ["import urllib.request\\nprint(urllib.request.urlopen('{WWW}', timeout=20).read().decode())"]}}],
 "metadata": {{"kernelspec": {{"display_name": "p", "language": "python", "name": "python3"}}}},
 "nbformat": 4, "nbformat_minor": 5}}
END
jupyter execute --inplace get.ipynb
cat get.ipynb
"""


def _neptune(name: str, proxies: str) -> Further:
    """Its client looks the cloud's name up by itself, unless it was given proxies."""
    code = f"""import os
import neptune
quiet = dict.fromkeys(("capture_hardware_metrics", "capture_stdout", "capture_stderr", "capture_traceback"), False)
run = neptune.init_run(project="alice/lab", api_token="{key()}", proxies={proxies}, git_ref=False, source_files=[],
                       **quiet)
run["loss"].append(int(os.environ["LOSS"]))
run.stop()
"""
    seen = "neptune POST /api/leaderboard/v1/experiment/operations"
    return Further(
        Client(name, installed("neptune"), in_python(code), seen, prints=False),
        ("neptune",),
        says=r"^neptune\S+:",
    )


FRAMEWORKS = (
    Further(
        Client("Ray, two nodes", installed("ray"), _RAY, "www GET /token"), ("ray",), options=_TWO_NODES, says="Error"
    ),
    Further(
        Client("Dask, two nodes", installed("distributed"), _DASK, "www GET /token"),
        ("distributed",),
        options=_TWO_NODES,
        says="Error",
    ),
    python("gradio, its app on this node", _GRADIO, "www GET /token", "gradio", says="Error"),
    Further(
        Client("TensorBoard, on this node", installed("tensorboard"), _TENSORBOARD, "www GET /token"),
        ("tensorboard", "setuptools<81"),
        says="Error|curl",
    ),
    Further(
        Client("Jupyter's kernel", "jupyter execute --version", _JUPYTER, "www GET /token"),
        ("nbclient", "ipykernel"),
        says="Error",
    ),
    Further(
        Client(
            "mlflow",
            installed("mlflow-skinny"),
            in_python(_MLFLOW),
            "mlflow POST .*/runs/log-(metric|batch)",
            prints=False,
        ),
        ("mlflow-skinny",),
        says="Error|Exception",
    ),
    _neptune("neptune", "None"),
    _neptune("neptune, init_run(proxies=…)", 'dict(https=os.environ["https_proxy"])'),
)
