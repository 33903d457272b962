//! The tool as people run it: on the golden checkpoints, on files that are made here, on files that are damaged here.

mod bank;
mod combine;
mod export;
mod inspect;
mod manners;
mod merge;
mod modes;
mod replay;
mod resize;
mod support;
mod verify;
