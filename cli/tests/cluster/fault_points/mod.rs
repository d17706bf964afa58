//! Daemons that are stopped or killed exactly between two steps, at every place in `buoy_fence::fault::POINTS`.

mod bed;
mod killed;
mod planted;
mod stopped;
