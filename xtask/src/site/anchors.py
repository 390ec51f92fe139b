"""Gives headings the anchors that links in the repository use: lower case, no punctuation, a hyphen for each space."""

import re


def slug(text, separator):
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def on_config(config):
    config["mdx_configs"].setdefault("toc", {}).update(slugify=slug, permalink=True)
    return config
