-- What a token took of the energy, where the machine counts it.
ALTER TABLE benches ADD COLUMN joules_per_prompt_token REAL;
ALTER TABLE benches ADD COLUMN joules_per_token REAL;
