"""Organizations, their members and invitations: /orgs, /user/orgs, /user/org_invitations."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.domain.config.decisions.organizations import (
    VISIBILITIES,
    decide_answer_invitation,
    decide_change_organization,
    decide_create_organization,
    decide_delete_organization,
    decide_invite,
    decide_remove_member,
    decide_set_member,
    decide_withdraw_invitation,
    find_invitation,
)
from runstream.domain.config.lists import (
    invitations_of,
    list_members,
    list_organizations,
    list_organizations_of,
)
from runstream.domain.config.permissions import Action, adding_member, inviting
from runstream.domain.config.references import find_organization, find_user
from runstream.domain.config.state import ConfigState, Decision
from runstream.events.organization import MemberRole, Visibility
from runstream.gateway.config_bodies import (
    CreateOrganizationBody,
    InvitationActionBody,
    InviteBody,
    MemberBody,
    UpdateOrganizationBody,
)
from runstream.gateway.config_requests import At, ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.cursors import Limit, Page, parse_limit
from runstream.gateway.routers import api_router
from runstream.gateway.routes.users import own_user
from runstream.gateway.views import invitation_view, organization_view, user_view
from runstream.ids import new_id


def organization_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of organizations."""
    router = api_router("organizations")
    _organization_routes(router, context)
    _member_routes(router, context)
    _invitation_routes(router, context)
    _own_routes(router, context)
    return router


def _organization_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/orgs", openapi_extra=documented(None, list[api.OrganizationView]))
    async def get_organizations(request: Request, page: Page) -> Response:
        """Return public organizations by name; for administrators, private ones too."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        asked.require(state, Action.LIST_ORGANIZATIONS)
        visibilities = VISIBILITIES if asked.actor.admin else ("public",)
        found, more = list_organizations(state, page.page, visibilities)
        headers = page.headers(found[-1].name if found else "", more=more)
        return json_response([organization_view(one) for one in found], headers=headers)

    @router.get("/orgs/{org}", openapi_extra=documented(None, api.OrganizationView))
    async def get_organization(request: Request, org: Ref, at: At = "") -> Response:
        """Return an organization, by name or id."""
        asked = ConfigRequest(context, request)
        state = await asked.state_at(at)
        return json_response(organization_view(asked.seen(state, find_organization, org, at)))

    @router.post(
        "/orgs",
        status_code=201,
        openapi_extra=documented(CreateOrganizationBody, api.OrganizationView, statuses=(201,)),
    )
    async def create_organization(request: Request) -> Response:
        """Create an organization, with a root project group; the user who creates it is its first owner."""
        asked = ConfigRequest(context, request)
        body, key, root = await asked.body(CreateOrganizationBody), new_id(), new_id()

        def decide(state: ConfigState) -> Decision:
            asked.require(state, Action.CREATE_ORGANIZATION)
            return decide_create_organization(
                state,
                organization_id=key,
                root_group_id=root,
                name=body.name,
                visibility=cast("Visibility", body.visibility),
                creator=state.users.get(asked.actor.user_id),
            )

        return await asked.changed(decide, lambda state: organization_view(state.organizations[key]), status=201)

    @router.put("/orgs/{org}", openapi_extra=documented(UpdateOrganizationBody, api.OrganizationView))
    async def update_organization(request: Request, org: Ref) -> Response:
        """Make an organization public or private."""
        asked = ConfigRequest(context, request)
        body = await asked.body(UpdateOrganizationBody)

        def decide(state: ConfigState) -> Decision:
            found = find_organization(state, org)
            asked.require(state, Action.CHANGE_ORGANIZATION, found)
            if body.visibility is None:
                return []
            return decide_change_organization(found, cast("Visibility", body.visibility))

        return await asked.changed(decide, lambda state: organization_view(find_organization(state, org)))

    @router.delete("/orgs/{org}", status_code=204)
    async def delete_organization(request: Request, org: Ref) -> Response:
        """Delete an organization with everything that belongs to it."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            found = find_organization(state, org)
            asked.require(state, Action.CHANGE_ORGANIZATION, found)
            return decide_delete_organization(state, found)

        return Response(status_code=204, headers=await asked.change(decide))


def _member_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/orgs/{org}/members", openapi_extra=documented(None, api.MembersView))
    async def get_members(request: Request, org: Ref, page: Page) -> Response:
        """Return the members of an organization by name."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        organization = asked.seen(state, find_organization, org)
        found, more = list_members(state, organization, page.page)
        members = tuple(api.MemberView(user_view(user), role) for user, role in found)
        headers = page.headers(found[-1][0].name if found else "", more=more)
        return json_response(api.MembersView(organization_view(organization), members), headers=headers)

    @router.put("/orgs/{org}/members/{user}", openapi_extra=documented(MemberBody, api.AddedMemberView))
    async def set_member(request: Request, org: Ref, user: Ref) -> Response:
        """Add a member to an organization, or give a member another role; the last owner stays an owner."""
        asked = ConfigRequest(context, request)
        body = await asked.body(MemberBody)

        def decide(state: ConfigState) -> Decision:
            organization = find_organization(state, org)
            direct = context.settings.member_adding == "direct"
            asked.require(state, adding_member(direct=direct), organization)
            return decide_set_member(organization, find_user(state, user), cast("MemberRole", body.role))

        def view(state: ConfigState) -> api.AddedMemberView:
            organization, found = find_organization(state, org), find_user(state, user)
            return api.AddedMemberView(organization_view(organization), user_view(found), body.role)

        return await asked.changed(decide, view)

    @router.delete("/orgs/{org}/members/{user}", status_code=204)
    async def remove_member(request: Request, org: Ref, user: Ref) -> Response:
        """Remove a member who is not the last owner."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            organization = find_organization(state, org)
            asked.require(state, Action.CHANGE_ORGANIZATION, organization)
            return decide_remove_member(organization, find_user(state, user))

        return Response(status_code=204, headers=await asked.change(decide))


def _invitation_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/orgs/{org}/invitations", openapi_extra=documented(None, list[api.InvitationView]))
    async def get_invitations(request: Request, org: Ref, limit: Limit = "") -> Response:
        """Return the pending invitations to an organization, the oldest first."""
        asked = ConfigRequest(context, request)
        state, most = await asked.fresh(), parse_limit(limit)
        organization = find_organization(state, org)
        asked.require(state, Action.READ_INVITATIONS, organization)
        found = [invitation_view(organization, one) for one in organization.invitations.values()]
        return json_response(found[:most] if most else found)

    @router.post(
        "/orgs/{org}/invitations",
        status_code=201,
        openapi_extra=documented(InviteBody, api.InvitationView, statuses=(201,)),
    )
    async def invite(request: Request, org: Ref) -> Response:
        """Invite a user to an organization; where members are added directly, there are no invitations."""
        asked = ConfigRequest(context, request)
        body, key = await asked.body(InviteBody), new_id()

        def decide(state: ConfigState) -> Decision:
            direct = context.settings.member_adding == "direct"
            if direct:
                asked.require(state, inviting(direct=True))
            organization = find_organization(state, org)
            asked.require(state, inviting(direct=direct), organization)
            return decide_invite(
                organization, find_user(state, body.user_ref), invitation_id=key, role=cast("MemberRole", body.role)
            )

        def view(state: ConfigState) -> api.InvitationView:
            organization = find_organization(state, org)
            return invitation_view(organization, find_invitation(organization, find_user(state, body.user_ref)))

        return await asked.changed(decide, view, status=201)

    @router.get("/orgs/{org}/invitations/{user}", openapi_extra=documented(None, api.InvitationView))
    async def get_invitation(request: Request, org: Ref, user: Ref) -> Response:
        """Return the pending invitation of a user to an organization, for its owners and that user."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        organization, found = find_organization(state, org), find_user(state, user)
        if asked.actor.user_id != found.id:
            asked.require(state, Action.READ_INVITATIONS, organization)
        return json_response(invitation_view(organization, find_invitation(organization, found)))

    @router.delete("/orgs/{org}/invitations/{user}", status_code=204)
    async def withdraw_invitation(request: Request, org: Ref, user: Ref) -> Response:
        """Withdraw an invitation."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            organization = find_organization(state, org)
            asked.require(state, Action.READ_INVITATIONS, organization)
            asked.require(state, Action.CHANGE_ORGANIZATION, organization)
            return decide_withdraw_invitation(organization, find_user(state, user))

        return Response(status_code=204, headers=await asked.change(decide))


def _own_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/user/orgs", openapi_extra=documented(None, list[api.MembershipView]))
    async def get_own_organizations(request: Request, page: Page) -> Response:
        """Return the organizations of the user who asks, by name."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        found, more = list_organizations_of(state, own_user(asked, state), page.page)
        headers = page.headers(found[-1][0].name if found else "", more=more)
        return json_response([api.MembershipView(organization_view(one), role) for one, role in found], headers=headers)

    @router.get("/user/org_invitations", openapi_extra=documented(None, list[api.InvitationView]))
    async def get_own_invitations(request: Request, limit: Limit = "") -> Response:
        """Return the pending invitations of the user who asks, by the organization's name."""
        asked = ConfigRequest(context, request)
        state, most = await asked.fresh(), parse_limit(limit)
        user = own_user(asked, state)
        found = [invitation_view(one, one.invitations[user.id]) for one in invitations_of(state, user)]
        return json_response(found[:most] if most else found)

    @router.put("/user/org_invitations/{org}/actions", openapi_extra=documented(InvitationActionBody, None))
    async def answer_invitation(request: Request, org: Ref) -> Response:
        """Accept an invitation, or reject it."""
        asked = ConfigRequest(context, request)
        body = await asked.body(InvitationActionBody)

        def decide(state: ConfigState) -> Decision:
            asked.require(state, Action.ANSWER_INVITATION)
            user = state.users[asked.actor.user_id]
            return decide_answer_invitation(find_organization(state, org), user, body.action_type)

        return Response(status_code=200, headers=await asked.change(decide))
