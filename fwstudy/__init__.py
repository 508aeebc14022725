"""fwstudy: a reproducible study of face forgery detection by feature whitening.

How data flow, and which room makes them (imports run from the bottom of this list to its
top, but for the check that `python -m fwstudy.params` makes):

    labels.py  params.py  runtime.py     words, settings and their ranges, seeds and folders
    clips.py                             FORMAT 1, a clip: frames, forgeries, masks, landmarks (.npz)
    whitening/                           the layer as a library; torch, NumPy and timm
    crops/                               FORMAT 2, a crop set: manifest.csv and its arrays
    faces/                               makes or reads clips           assets, photos, videos -> data/faces
    preprocess/                          codec, face crops, splits      data/faces -> data/crops
    training/                            baseline, layer, variants      data/crops -> data/models
    evaluation/                          scores, intervals, paired tests
    interpretability/                    evidence by concept, maps, and whether they are true
    outside/                             detectors that were not trained here, measured alike
    reporting/                           tables, plots, pages
    execute.py   pipeline.py             one notebook of a stage, and stages side by side
    explain/    profiles.py              the commands "explain your own" and "values of a paper"
    export.py   score.py                 crops for a detector elsewhere, and what it hands back

faces, preprocess and training do not know each other: clips and crop sets are all that passes between
them. Each stage of dvc.yaml runs one notebook on the rooms that it declares. So an edit of

    faces/                               reruns faces and other_crops; what follows only if a byte changes
    clips.py                             the same, and preprocess; training if the crops change
    preprocess/                          reruns preprocess and other_crops; training if the crops change,
                                         a column of manifest.csv included
    crops/                               reruns preprocess and other_crops, and trains every model
                                         (boxes.py: faces too)
    whitening/, training/                trains every model, on the crops that are there
    outside/                             measures detectors of others anew
    evaluation/, interpretability/       measures and compares anew; trains nothing
    reporting/                           draws the tables and figures anew; trains nothing
    params.yaml                          reruns the stages that read the value
    params.py                            reruns settings, in seconds; a variant if what it means changes
    notebooks/                           reruns the stages of that notebook
    explain/, *.py not named here        reruns nothing
    labels.py, runtime.py                reruns everything but settings
"""

__version__ = "0.1.0"
