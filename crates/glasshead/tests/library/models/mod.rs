mod bert;
mod config;
mod config_decoders;
mod decoders;
mod gguf;
mod passes;
