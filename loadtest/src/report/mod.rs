//! What a run came to, told to people and machines.

pub mod html;
pub mod junit;
mod plot;
pub mod terminal;
