mod answer;
mod chat;
