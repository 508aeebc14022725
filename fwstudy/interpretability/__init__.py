"""What axes and maps mean.

`explainers.EXPLAINERS`, each with its `NEEDS`, run in the stages measure and score; `leaderboard.RANKED`
names those of the stage explanations. `measures.TOPICS` lists what is measured; a measure of concepts
goes into `concept_metrics`.
"""
