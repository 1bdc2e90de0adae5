mod catalogue;
mod gguf;
mod hostile_gguf;
mod hostile_safetensors;
mod shards;
