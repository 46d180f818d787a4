"""More listeners than one machine can serve: the same app behind Ray Serve.

    pip install "harmonica-tts[serve]" "ray[serve]"
    serve run examples.ray_serve:app                    # http://127.0.0.1:8000/v1/audio/speech

Each replica has its own models and one thread that speaks. Nothing but voices that users add is remembered between
two requests: give all replicas one folder for those (HARMONICA_VOICES), or only speak in packaged voices.
"""
import os
from ray import serve
from harmonica.serve import make_app

def build():
    "Called in each replica: the models are loaded there"
    return make_app(folder=os.environ.get("HARMONICA_VOICES"), token=os.environ.get("HARMONICA_TOKEN"))

@serve.deployment(num_replicas=int(os.environ.get("HARMONICA_REPLICAS", "2")), ray_actor_options={"num_cpus": 1})
@serve.ingress(build)
class Speech:
    "One replica"

app = Speech.bind()
