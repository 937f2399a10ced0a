#![deny(unsafe_code)] // `shell::durable` alone may, and says why

pub mod core;
pub mod shell;
pub mod wire;
