"""Scenarios about Amazon: spending, choosing a product, and the wish list."""

import math
from textwrap import dedent

from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario
from generator.words import PRODUCTS


@scenario("train", 1)
def spent_in_year(scene: Scene) -> Draft:
    """Sum the orders of one year, in some variants only those above an amount."""
    year, least = scene.choose([(2023, 0), (2024, 0), (2023, 0), (2023, 150), (2024, 60), (2023, 250), (2024, 100), (2023, 400), (2023, 320)])
    total = 0.0
    for order in scene.models.amazon.Order.find_all(user_id=scene.account("amazon").id):
        if order.created_at.year == year:
            items = sum(item.price * item.ordered_quantity for item in order.order_items)
            paid = items + order.tax + order.delivery_fee + order.gift_wrap_fee - order.discount
            total += paid if paid > least else 0
    wish, condition = (f" that cost more than {least} dollars each", f' and order["paid_amount"] > {least}') if least else ("", "")
    return Draft(
        instruction=f"How much money did I leave at Amazon in {year}? Sum up what I paid for all orders placed that year{wish}, in dollars and cents.",
        answer=round(total, 2),
        public={"year": year, "least": least},
        steps=[
            login("amazon"),
            pages("orders", "amazon.show_orders"),
            dedent(f"""
            chosen = [order for order in orders if order["created_at"][:4] == "{year}"{condition}]
            total = round(sum(order["paid_amount"] for order in chosen), 2)
            print(len(chosen), total)
            """),
            complete("total"),
        ],
    )


@scenario("train", 2)
def cheapest_into_cart(scene: Scene) -> Draft:
    """Put the cheapest well-rated product into the cart."""
    kind = scene.rng.choice(sorted(PRODUCTS)[scene.variant % 3 :: 3])
    limit, quantity = scene.choose([(3.5, 1), (3.0, 1), (3.2, 1), (2.8, 2), (4.0, 1), (3.7, 3), (2.5, 1), (3.4, 4), (3.9, 2)])
    pieces = ["one piece", "two pieces", "three pieces", "four pieces"][quantity - 1]
    user, products = scene.account("amazon"), scene.models.amazon.Product.find_all(product_type=kind)
    good = sorted((product for product in products if product.rating >= limit), key=lambda product: product.price)
    if not good:
        good = products[:1]
        good[0].rating = 4.5
        good[0].save()
    return Draft(
        instruction=f"I want a {kind}. Of those on Amazon that are rated {limit} or better, put {pieces} of the cheapest into my cart. Don't order it yet.",
        public={"kind": kind, "limit": limit, "quantity": quantity},
        changes=[Change("amazon.CartEntry", added=[{"user_id": user.id, "product_id": good[0].id, "quantity": quantity}])],
        steps=[
            login("amazon"),
            pages("products", "amazon.search_products", f'product_type="{kind}"', token=""),
            dedent(f"""
            good = [product for product in products if product["rating"] >= {limit}]
            best = min(good, key=lambda product: product["price"])
            print(len(good), best["product_id"], best["name"], best["price"])
            """),
            dedent(f"""
            result = apis.amazon.add_product_to_cart(product_id=best["product_id"], quantity={quantity}, access_token=amazon_token)
            print(result)
            """),
            complete(),
        ],
    )


@scenario("dev", 2)
def wish_list_to_cart(scene: Scene) -> Draft:
    """Move affordable products from the wish list to the cart."""
    user = scene.account("amazon")
    entries = scene.models.amazon.WishListEntry.find_all(user_id=user.id)
    limit = math.ceil(sorted(entry.product.price for entry in entries)[3 + scene.variant]) + 1
    moved = [entry for entry in entries if entry.product.price < limit]
    return Draft(
        instruction=f"Payday! Every product on my Amazon wish list with a price below {limit} dollars may move over to my cart.",
        public={"limit": limit},
        changes=[
            Change("amazon.WishListEntry", removed=[entry.id for entry in moved]),
            Change("amazon.CartEntry", added=[{"user_id": user.id, "product_id": entry.product_id, "quantity": 1} for entry in moved]),
        ],
        steps=[
            login("amazon"),
            dedent(f"""
            wishes = apis.amazon.show_wish_list(access_token=amazon_token)
            cheap = [wish for wish in wishes if wish["price"] < {limit}]
            print(len(wishes), [(wish["product_name"], wish["price"]) for wish in cheap])
            """),
            dedent("""
            for wish in cheap:
                apis.amazon.move_product_from_wish_list_to_cart(product_id=wish["product_id"], access_token=amazon_token)
            print(len(cheap), "moved")
            """),
            complete(),
        ],
    )
