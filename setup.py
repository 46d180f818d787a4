"What pyproject.toml calls dynamic, read from settings.ini"
from configparser import ConfigParser
from setuptools import setup

ini = ConfigParser(delimiters=["="])
ini.read("settings.ini")
cfg = ini["DEFAULT"]
extras = {k.removesuffix("_requirements"): cfg[k].split() for k in cfg if k.endswith("_requirements")}
setup(version=cfg["version"], install_requires=cfg["requirements"].split(), extras_require=extras,
    packages=["harmonica"],
    package_data={"harmonica": ["*.toml", "*.html", "*.js", "*.pyi", "py.typed", "configs/*.yaml", "weights/*",
        "voices/*"]},
    entry_points=dict(console_scripts=cfg["console_scripts"].split(), nbdev=["harmonica=harmonica._modidx:d"]))
