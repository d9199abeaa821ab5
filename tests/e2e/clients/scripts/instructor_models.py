"""instructor: a model of the answer, asked for as a call and as a schema."""

import os

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field

URL, MODEL = os.environ["URL"], os.environ["MODEL"]


class City(BaseModel):
    name: str = Field(max_length=12)


for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key="none"), mode=mode)
    city = client.chat.completions.create(
        model=MODEL,
        response_model=City,
        messages=[{"role": "user", "content": "Paris is a city. Extract its name."}],
        temperature=0,
        max_tokens=100,
        max_retries=0,
    )
    assert isinstance(city, City), (mode, city)
