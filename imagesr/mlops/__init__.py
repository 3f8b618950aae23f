"""From new data to a better model in service: `imagesr promote`, `imagesr retrain`, `imagesr tune`.

`gate` decides, by figures that `measures` takes; `registry` keeps versions of models, `promote` brings a run there.
`retrain` does all of it when the data has changed, and `tune` searches for a config. Training itself is in `train`,
the service in `serve`. Only `tune` imports Optuna, and only `ray_tune` Ray Tune.
"""
