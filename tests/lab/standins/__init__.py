"""What the internet has to offer in the lab: real protocols, small worlds, and an error for whatever is not known.

    front     one https port; each name is a service; every request is written down with the address it came from
    world     what all services share: the session's secret token and the book of requests
    web       the token as text                     git      git's own http-backend on a real repository
    pypi      a simple index with one wheel         npm      a registry with one package
    go        a module proxy with one module        crates   a registry with one crate
    conda     a channel with one package            maven    a repository with one parent
    oci       a registry with one image             s3       moto's S3
    hub       the Hugging Face Hub with one model   xet      where the hub has its large files
    llm       openai and anthropic: language models that answer as a stream of events
    responses OpenAI's newer API, over HTTP and     gemini   Google's
              over a websocket: what codex speaks   slack    Slack, for one message
    swanlab   SwanLab's cloud                       wandb    Weights & Biases' cloud
    mlflow    MLflow's tracking server              neptune   Neptune's cloud
    kaggle    Kaggle, with one data set             modelscope  ModelScope's hub with one model
    gcs       Google Cloud Storage's JSON API

They run on the lab's host `internet`: python -m tests.lab.standins DIRECTORY CERTIFICATE KEY
"""

PORT = 8443
DOMAIN = "internet.test"
