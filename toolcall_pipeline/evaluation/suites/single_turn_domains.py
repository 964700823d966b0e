"""Domains of suite D that no coding agent works in: their tools, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolcall_pipeline.evaluation.suites.single_turn_asks import CODING_ASKS, NO_TOOL_ASKS, SLOTS, Ask

__all__ = ["CODING_ASKS", "DOMAINS", "NO_TOOL_ASKS", "SLOTS", "Ask", "Domain"]

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
Tool = tuple[str, dict[str, Any], list[str]]


def _tool(description: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> Tool:
    return description, {**required, **(optional or {})}, list(required)


@dataclass(frozen=True)
class Domain:
    """Tools (description, properties, required names) and asks."""

    tools: dict[str, Tool]
    asks: tuple[Ask, ...]


DOMAINS: dict[str, Domain] = {
    "travel": Domain(
        {
            "search_flights": _tool("Find flights between two cities.", {"origin": TEXT, "destination": TEXT, "date": TEXT}),
            "search_trains": _tool("Find train connections.", {"origin": TEXT, "destination": TEXT, "date": TEXT}),
            "book_hotel": _tool("Book a hotel room.", {"city": TEXT, "check_in": TEXT, "nights": WHOLE}),
            "get_weather": _tool("Weather forecast of a city on a day.", {"city": TEXT, "date": TEXT}),
            "rent_car": _tool("Rent a car.", {"city": TEXT, "pick_up": TEXT}),
            "city_time": _tool("Local time in a city.", {"city": TEXT}),
        },
        (
            Ask("search_flights", {"origin": "{city}", "destination": "{other_city}", "date": "{date}"}, (
                "Find flights from {city} to {other_city} on {date}.", "I want to fly from {city} to {other_city}, {date}.",
            ), joinable=True),
            Ask("search_trains", {"origin": "{city}", "destination": "{other_city}", "date": "{date}"}, (
                "Which trains go from {city} to {other_city} on {date}?", "Look up rail connections {city} to {other_city}, {date}.",
            )),
            Ask("get_weather", {"city": "{city}", "date": "{date}"}, (
                "What will the weather be in {city} on {date}?", "Do I need an umbrella in {city} on {date}?",
            ), joinable=True),
            Ask("city_time", {"city": "{city}"}, ("What time is it in {city} right now?", "Local time in {city}, please.")),
            Ask("rent_car", {"city": "{city}", "pick_up": "{date}"}, (
                "Get me a rental car in {city}, picking it up on {date}.", "Rent a car for me in {city} from {date}.",
            )),
        ),
    ),
    "calendar": Domain(
        {
            "create_event": _tool("Put an event into the calendar.", {"title": TEXT, "date": TEXT, "time": TEXT}),
            "list_events": _tool("List the events of a day.", {"date": TEXT}),
            "delete_event": _tool("Remove an event.", {"title": TEXT, "date": TEXT}),
            "invite_person": _tool("Invite someone to an event.", {"title": TEXT, "person": TEXT}),
            "set_reminder": _tool("Remind me of something.", {"text": TEXT, "date": TEXT, "time": TEXT}),
            "find_free_slot": _tool("Find free time with someone.", {"person": TEXT, "date": TEXT}),
        },
        (
            Ask("create_event", {"title": "{topic}", "date": "{date}", "time": "{time}"}, (
                "Put '{topic}' into my calendar on {date} at {time}.", "Schedule an event called {topic}: {date}, {time}.",
            ), joinable=True),
            Ask("list_events", {"date": "{date}"}, ("What do I have on {date}?", "List my events of {date}."), joinable=True),
            Ask("delete_event", {"title": "{topic}", "date": "{date}"}, (
                "Remove the event '{topic}' on {date}.", "Cancel {topic} on {date}.",
            )),
            Ask("invite_person", {"title": "{topic}", "person": "{person}"}, (
                "Invite {person} to the event '{topic}'.", "{person} should be asked to join {topic}: send the invitation.",
            )),
            Ask("find_free_slot", {"person": "{person}", "date": "{date}"}, (
                "When are {person} and I both free on {date}?", "Find a gap on {date} that works for {person} and me.",
            )),
        ),
    ),
    "money": Domain(
        {
            "convert_currency": _tool("Convert an amount.", {"amount": WHOLE, "source": TEXT, "target": TEXT}),
            "stock_price": _tool("Latest price of a share.", {"ticker": TEXT}),
            "transfer_money": _tool("Send money to someone.", {"recipient": TEXT, "amount": WHOLE, "currency": TEXT}),
            "account_balance": _tool("Balance of an account.", {"currency": TEXT}),
            "list_transactions": _tool("Transactions since a day.", {"since": TEXT}),
        },
        (
            Ask("convert_currency", {"amount": "{amount}", "source": "{currency}", "target": "{other_currency}"}, (
                "How much is {amount} {currency} in {other_currency}?", "Convert {amount} {currency} to {other_currency}.",
            ), integers=("amount",), joinable=True),
            Ask("stock_price", {"ticker": "{symbol_stock}"}, (
                "What is {symbol_stock} trading at?", "Give me the latest share price of {symbol_stock}.",
            ), joinable=True),
            Ask("transfer_money", {"recipient": "{person}", "amount": "{amount}", "currency": "{currency}"}, (
                "Send {person} {amount} {currency}.", "Transfer {amount} {currency} to {person}.",
            ), integers=("amount",)),
            Ask("list_transactions", {"since": "{date}"}, (
                "Which transactions were there since {date}?", "Show me everything booked since {date}.",
            )),
        ),
    ),
    "home": Domain(
        {
            "set_light": _tool("Switch or dim the light of a room.", {"room": TEXT, "brightness_percent": WHOLE}),
            "set_temperature": _tool("Heat or cool a room.", {"room": TEXT, "celsius": WHOLE}),
            "lock_door": _tool("Lock a door.", {"room": TEXT}),
            "play_music": _tool("Play a piece in a room.", {"title": TEXT, "room": TEXT}),
            "start_vacuum": _tool("Send the vacuum robot to a room.", {"room": TEXT}),
            "read_sensor": _tool("Read a sensor of a room.", {"room": TEXT, "sensor": {"type": "string", "enum": ["humidity", "motion", "smoke"]}}),
        },
        (
            Ask("set_light", {"room": "{room}", "brightness_percent": "{number}"}, (
                "Set the light in the {room} to {number} percent.", "Dim the {room} light to {number} %.",
            ), integers=("brightness_percent",), joinable=True),
            Ask("play_music", {"title": "{song}", "room": "{room}"}, (
                "Play {song} in the {room}.", "I'd like to hear '{song}' in the {room}.",
            ), joinable=True),
            Ask("start_vacuum", {"room": "{room}"}, ("Vacuum the {room}.", "The {room} is dusty, send the robot there.")),
            Ask("lock_door", {"room": "{room}"}, ("Lock the door of the {room}.", "Make sure the {room} door is locked: lock it.")),
            Ask("read_sensor", {"room": "{room}", "sensor": "humidity"}, (
                "How humid is it in the {room}?", "Read the humidity sensor in the {room}.",
            )),
        ),
    ),
    "shop": Domain(
        {
            "search_products": _tool("Search the shop.", {"query": TEXT}, {"max_price": WHOLE}),
            "add_to_cart": _tool("Put a product into the cart.", {"product": TEXT, "quantity": WHOLE}),
            "track_order": _tool("Where an order is.", {"order_id": TEXT}),
            "return_order": _tool("Send an order back.", {"order_id": TEXT, "reason": TEXT}),
            "list_reviews": _tool("Reviews of a product.", {"product": TEXT}),
        },
        (
            Ask("search_products", {"query": "{product}", "max_price": "{amount}"}, (
                "Search for a {product} that costs at most {amount}.", "Find me a {product}, {amount} at the most.",
            ), integers=("max_price",), joinable=True),
            Ask("add_to_cart", {"product": "{product}", "quantity": "{number}"}, (
                "Put {number} of '{product}' into my cart.", "I'll take {number} times the {product}: add them to the cart.",
            ), integers=("quantity",)),
            Ask("track_order", {"order_id": "{order}"}, ("Where is my order {order}?", "Track order {order}."), joinable=True),
            Ask("list_reviews", {"product": "{product}"}, (
                "What do others say about the {product}? Show the reviews.", "Show reviews of the {product}.",
            )),
        ),
    ),
    "data": Domain(
        {
            "run_query": _tool("Run a SQL query.", {"sql": TEXT}),
            "describe_table": _tool("Columns of a table.", {"table": TEXT}),
            "count_rows": _tool("Number of rows of a table.", {"table": TEXT}),
            "export_table": _tool("Export a table to a file.", {"table": TEXT, "format": {"type": "string", "enum": ["csv", "parquet"]}}),
            "refresh_dashboard": _tool("Refresh a dashboard.", {"name": TEXT}),
        },
        (
            Ask("describe_table", {"table": "{table}"}, ("Which columns has the table {table}?", "Describe {table}."),
                also=("run_query",), joinable=True),
            Ask("count_rows", {"table": "{table}"}, ("How many rows are in {table}?", "Count the rows of table {table}."),
                also=("run_query",), joinable=True),
            Ask("export_table", {"table": "{table}", "format": "csv"}, (
                "Export the table {table} as csv.", "I need {table} as a csv file.",
            )),
            Ask("refresh_dashboard", {"name": "{topic}"}, (
                "Refresh the dashboard called {topic}.", "The {topic} dashboard looks stale, refresh it.",
            )),
        ),
    ),
    "messages": Domain(
        {
            "send_message": _tool("Send a chat message.", {"recipient": TEXT, "text": TEXT}),
            "send_email": _tool("Send an e-mail.", {"recipient": TEXT, "subject": TEXT, "body": TEXT}),
            "search_inbox": _tool("Search the inbox.", {"query": TEXT}),
            "translate": _tool("Translate a text.", {"text": TEXT, "language": TEXT}),
            "start_call": _tool("Call someone.", {"recipient": TEXT}),
            "add_contact": _tool("Add a contact.", {"name": TEXT, "city": TEXT}),
        },
        (
            Ask("send_message", {"recipient": "{person}", "text": "{sentence}"}, (
                "Send {person} the message: {sentence}", "Tell {person} by chat: {sentence}",
            ), joinable=True),
            Ask("search_inbox", {"query": "{topic}"}, (
                "Search my inbox for {topic}.", "Find the mails about {topic}.",
            ), joinable=True),
            Ask("translate", {"text": "{sentence}", "language": "{language}"}, (
                "Translate '{sentence}' into {language}.", "How do you say '{sentence}' in {language}? Use the translator.",
            ), joinable=True),
            Ask("start_call", {"recipient": "{person}"}, ("Call {person}.", "Get {person} on the phone.")),
            Ask("add_contact", {"name": "{person}", "city": "{city}"}, (
                "Add {person} from {city} to my contacts.", "New contact: {person}, lives in {city}.",
            )),
        ),
    ),
    "kitchen": Domain(
        {
            "find_recipe": _tool("Find a recipe.", {"dish": TEXT}, {"servings": WHOLE}),
            "set_timer": _tool("Start a timer.", {"minutes": WHOLE}),
            "nutrition_facts": _tool("Nutrition of a dish.", {"dish": TEXT}),
            "add_to_shopping_list": _tool("Put something on the shopping list.", {"item": TEXT}),
            "substitute": _tool("What can replace an ingredient.", {"ingredient": TEXT}),
        },
        (
            Ask("find_recipe", {"dish": "{dish}"}, ("Find a recipe for {dish}.", "How is {dish} made? Look up a recipe."), joinable=True),
            Ask("set_timer", {"minutes": "{number}"}, (
                "Set a timer for {number} minutes.", "Wake me from the stove in {number} minutes: start a timer.",
            ), integers=("minutes",), joinable=True),
            Ask("nutrition_facts", {"dish": "{dish}"}, (
                "How nutritious is {dish}? Look up the facts.", "Nutrition facts of {dish}, please.",
            )),
            Ask("add_to_shopping_list", {"item": "{product}"}, (
                "Put {product} on the shopping list.", "We need a {product}: add it to the shopping list.",
            )),
        ),
    ),
}  # fmt: skip
